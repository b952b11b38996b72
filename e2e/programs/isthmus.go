package programs

import (
	"context"
	"io"
	"path/filepath"
	"time"
)

// Isthmus builds this project's own command, as a static binary, into dir, and returns its path. Nothing is kept
// but what Go's build cache keeps. It blocks until the build is done; an error has the compiler's last lines.
func Isthmus(ctx context.Context, dir string, progress io.Writer) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	src, err := locate()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "isthmus")
	c := command{
		argv: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd/isthmus"},
		env:  []string{"CGO_ENABLED=0", "GOFLAGS=-v"},
		dir:  filepath.Dir(src),
	}
	r := begin(progress, "building isthmus", 5*time.Second)
	_, err = c.run(ctx, r.line)
	r.end(err)
	return out, err
}
