//go:build !unix

package h2

import (
	"errors"
	"io"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// newRawConn finds nothing here: every flush is the standby writer's.
func newRawConn(*Gather) rawConn { return nil }

// poller is not had here either.
type poller struct{}

func (*poller) next(int) (*bufpool.Buf, int, error) { return nil, 0, errors.ErrUnsupported }

func pollReader(io.Reader) *poller { return nil }
