//go:build unix

package wds

import (
	"io/fs"
	"os"
	"syscall"
)

// ours reports whether the file belongs to the user that we run as.
func ours(st fs.FileInfo) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}
