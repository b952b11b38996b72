// Package sourcetest is what the tests of identity's sources have in common.
package sourcetest
