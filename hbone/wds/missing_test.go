package wds_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// A file that istiod cannot be asked without, and that never comes, ends every wait, also one without an end, with an error that names it and the remedy. When
// it comes all is well; when it goes again what is known still leads somewhere.
func TestAFileThatNeverComes(t *testing.T) {
	for name, tt := range map[string]struct {
		set  func(c *wds.Config, path string)
		text func(istiod *wdstest.Istiod) []byte
		want string
	}{
		"the token": {
			set:  func(c *wds.Config, path string) { c.Token, c.TokenFile = nil, path },
			text: func(*wdstest.Istiod) []byte { return []byte("token\n") },
			want: "serviceAccountToken with audience istio-ca",
		},
		"the roots": {
			set: func(c *wds.Config, path string) { c.Roots, c.RootsFile = nil, path },
			text: func(i *wdstest.Istiod) []byte {
				pem, _ := i.Roots()
				return pem
			},
			want: "ConfigMap istio-ca-root-cert",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			istiod, c := start(t, func(c *wds.Config) { tt.set(c, path) })
			d := &hbone.Dialer{Identity: identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local")).Source(gateway.Source), Resolver: c}
			defer d.Close()
			named := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", what, err)
				}
			}
			begin := time.Now()
			_, err := d.DialContext(t.Context(), "tcp", "10.96.0.1:80")
			named("a dial", err)
			if took := time.Since(begin); took < time.Second || took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			begin = time.Now()
			named("Ready", c.Ready(t.Context()))
			_, err = c.Workload(t.Context(), own)
			named("Workload", err)
			named("Stats", c.Stats().LastError)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("further ones took %v", took)
			}

			if err := os.WriteFile(path, tt.text(istiod), 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, c, "an answer", func() bool {
				_, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
				return err == nil
			})
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if name == "the token" {
				istiod.Disconnect()
				_, err = c.Resolve(within(t, 20*time.Second), "tcp", "10.96.0.77:80")
				named("an empty file", err)
				resolve(t, c, "10.96.0.1:80")
			}
		})
	}
}
