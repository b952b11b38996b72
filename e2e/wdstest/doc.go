// Package wdstest holds tests of hbone/wds on a real istiod.
package wdstest
