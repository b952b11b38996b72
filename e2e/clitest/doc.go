// Package clitest has the tests of the command isthmus as a process, on a real control plane.
package clitest
