// Package spiretest holds tests of packages identity/spire and identity/sds on a real SPIRE server and agent, which need no world of their own.
package spiretest
