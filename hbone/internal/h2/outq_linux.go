package h2

import (
	"syscall"
	"unsafe"
)

// outq is how many bytes a socket has that its peer has not acknowledged.
func outq(fd int) int {
	var n int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return int(n)
}
