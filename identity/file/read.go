package file

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/identity/internal/regular"
)

// maxFile is how large a file may be; hundreds of roots fit in.
const maxFile = 4 << 20

// read reads a file of bounded size.
func read(path string) ([]byte, error) {
	data, err := regular.Read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	return data, nil
}
