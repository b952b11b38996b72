// Package command runs this project's own command in tests. It imports testing, and so is of tests alone.
package command
