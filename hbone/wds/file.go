package wds

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// openRegular opens a file that must be a regular one. Others, such as pipes that nobody writes to, would be waited for without end, and devices may have none.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	st, err := os.Stat(path)
	if err == nil && st.Mode().IsRegular() {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil { // not even if it has become a pipe meanwhile
			if st, err = f.Stat(); err == nil && st.Mode().IsRegular() {
				return f, st, nil
			}
			f.Close()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if st.IsDir() {
		return nil, nil, fmt.Errorf("%s is a directory", path)
	}
	return nil, nil, fmt.Errorf("%s is no regular file (mode %v)", path, st.Mode())
}

// readRegular reads a regular file of bounded size.
func readRegular(path string, most int64) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return data, nil
}
