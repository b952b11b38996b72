package file

import (
	"fmt"
	"io"
	"os"
)

// maxFile is how large a file may be; hundreds of roots fit in.
const maxFile = 4 << 20

// read reads a file of bounded size.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("identity file: %s has more than %d bytes", path, maxFile)
	}
	return data, nil
}
