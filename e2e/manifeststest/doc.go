// Package manifeststest has the tests of what is installed: the files on a real API server, and what admission refuses.
package manifeststest
