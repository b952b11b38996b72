package identitytest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// commandLine dials a server of the mesh with isthmus dial.
type commandLine struct {
	t    *testing.T
	m    *mesh.Mesh
	path string
	args []string
}

// newCommandLine has a server of the mesh that accepts tunnels and ends them. path is the command.
func newCommandLine(t *testing.T, m *mesh.Mesh, path string) *commandLine {
	t.Helper()
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
	cfg := config(m, token(t, m, account(t, m, "shop", "orders"), "istio-ca"))
	cfg.ID = id
	s := &hbone.Server{Identity: start(t, cfg), Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	l, err := m.NS.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }() // it ends by Close
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { s.Close() })
	return &commandLine{t: t, m: m, path: path, args: []string{
		"dial", "10.0.0.7:80", "-o", "json", "--timeout", "10s", "--via", l.Addr().String(), "--peer", id.String(),
	}}
}

// file writes what a flag names.
func (c *commandLine) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *commandLine) run(flags ...string) command.Result {
	c.t.Helper()
	return command.Run(c.t, c.path, c.m.NS, nil, append(c.args, flags...)...)
}

// istiod has the flags that lead to it, with a token.
func (c *commandLine) istiod(token string) []string {
	return []string{"--istiod", c.m.Istiod.CA.String(), "--ca-roots", c.file("roots.pem", string(c.m.RootPEM)), "--token-file", c.file("token", token)}
}

// is wants a tunnel, by whom.
func (c *commandLine) is(r command.Result, id spiffeid.ID) {
	c.t.Helper()
	var doc struct{ Connection struct{ Local string } }
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 || doc.Connection.Local != id.String() {
		c.t.Errorf("exit code %d, %+v, %v; want %s", r.Code, doc, err, id)
	}
}
