// Package controltest runs the controller in a test's own process, against a mesh. It imports testing, and so is of tests alone.
package controltest
