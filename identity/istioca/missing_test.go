package istioca_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// A program outside a pod ends with a reason rather than wait in silence, whatever its context says.
func TestAFileThatNeverComesEndsNew(t *testing.T) {
	for name, c := range map[string]struct {
		file func(*istioca.Config) string
		want string
	}{
		"token": {func(c *istioca.Config) string { return c.TokenFile }, "kubectl create token ACCOUNT -n NAMESPACE --audience istio-ca"},
		"roots": {func(c *istioca.Config) string { return c.RootsFile }, "ConfigMap istio-ca-root-cert"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path := c.file(&w.cfg)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { // no connection is made
				begin := time.Now()
				_, err := istioca.New(context.Background(), w.cfg)
				if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begin); took < 2*time.Second || took > 4*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// A kubelet mounts files a moment after the container has begun.
func TestAFileThatComesLaterIsTaken(t *testing.T) {
	w := newWorld(t)
	later := w.cfg.TokenFile + ".later"
	if err := os.Rename(w.cfg.TokenFile, later); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { _ = os.Rename(later, w.cfg.TokenFile) })
	w.start()
}
