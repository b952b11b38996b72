// Package citest tests the scripts of .ci: what they say and how they end, whatever go test says to them. It has nothing but tests.
package citest
