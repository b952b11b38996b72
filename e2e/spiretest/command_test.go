package spiretest

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// command dials server with isthmus dial, as whom the agent knows the process, by the Workload API and by SDS; and a server of the partner, whose roots
// come with the agent or from a file.
func (w *spireWorld) command(t *testing.T, server *identity.Source) {
	isthmus := command.Build(t)
	run := func(at, peer, socket string, flags ...string) command.Result {
		t.Helper()
		args := []string{"dial", "10.0.0.7:80", "-o", "json", "--timeout", "10s", "--via", at, "--peer", peer, "--socket", socket}
		return command.Run(t, isthmus, nil, nil, append(args, flags...)...)
	}
	is := func(r command.Result, id string) {
		t.Helper()
		var doc struct{ Connection struct{ Local string } }
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 || doc.Connection.Local != id {
			t.Errorf("exit code %d, %+v, %v; want %s", r.Code, doc, err, id)
		}
	}
	ours := serve(t, server)
	is(run(ours, orders.String(), w.socket, "--identity", "spire", "--spiffe-id", gateway.String()), gateway.String())
	is(run(ours, orders.String(), "unix://"+w.socket, "--identity", "spire", "--spire-hint", "backend"), orders.String())
	is(run(ours, orders.String(), w.socket, "--identity", "sds", "--sds-name", gateway.String()), gateway.String())

	theirs := identitytest.NewCA(partner)
	w.write("other-partner.pem", string(identitytest.PEM(theirs.Root)))
	peer := theirs.Source(partnerOrders)
	trusted, err := server.GetX509BundleForTrustDomain(gateway.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	peer.Bundles().Add(trusted)
	at := serve(t, peer)
	own := []string{"--identity", "sds", "--sds-name", gateway.String()}
	r := run(at, partnerOrders.String(), w.socket, own...)
	r.Want(t, 1, r.Stderr, "nobody vouches for trust domain partner.example")
	is(run(at, partnerOrders.String(), w.socket, append(own, "--trust-federated", "partner.example="+filepath.Join(w.dir, "other-partner.pem"))...), gateway.String())

	r = run(ours, orders.String(), w.socket, "--identity", "spire", "--spiffe-id", "spiffe://cluster.local/ns/edge/sa/nobody")
	r.Want(t, 1, r.Stderr, "the SPIFFE agent gave no certificate", w.socket, "does not have spiffe://cluster.local/ns/edge/sa/nobody", "correct --spiffe-id")
	r = run(ours, orders.String(), w.socket, "--identity", "sds", "--sds-name", "spiffe://cluster.local/ns/edge/sa/nobody")
	r.Want(t, 1, r.Stderr, "by secret discovery", w.socket, "has no secret", "--sds-name")
	r = run(ours, orders.String(), filepath.Join(w.dir, "nobody.sock"), "--identity", "spire")
	r.Want(t, 1, r.Stderr, "nobody.sock", "not reachable", "socket is mounted")
}

// serve is the address of a server of id that accepts tunnels and ends them.
func serve(t *testing.T, id hbone.Identity) string {
	t.Helper()
	l := listen(t)
	s := &hbone.Server{Identity: id, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
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
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
