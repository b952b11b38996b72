// Package controllertest runs the controller against real API servers: with istiod's and the node's parts played by the test, and
// against a whole mesh. It has tests only.
package controllertest
