//go:build !linux

package h2

// outq is not known here.
func outq(int) int { return 0 }
