package main

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
)

func refuseWith(status int) func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
	return func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
		return nil, &hbone.Refusal{Status: status, Err: errors.New("no")}
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDialNamesTheHopAndTheRemedy(t *testing.T) {
	good := newShop(t, orders(t), nil)
	for _, c := range []struct {
		name string
		shop *shop
		more []string
		want []string
	}{
		{"denied", newShop(t, "10.0.0.1:80", refuseWith(403)), nil, []string{"cannot dial 10.0.0.1:80", "workload at 127.0.0.1:", "403", "authorizationpolicies"}},
		{"not served there", newShop(t, "10.0.0.1:80", refuseWith(400)), nil, []string{"workload at 127.0.0.1:", "400", "does not serve 10.0.0.1:80"}},
		{"target away", newShop(t, closedPort(t), nil), nil, []string{"workload at 127.0.0.1:", "503", "pods behind it are ready"}},
		{"expired certificate", newShop(t, "10.0.0.1:80", nil, identitytest.Expired), nil, []string{"chain.pem", "expired", "renew the certificate"}},
		{"certificate of the future", newShop(t, "10.0.0.1:80", nil, identitytest.NotYetValid), nil, []string{"chain.pem", "cause:", "clocks"}},
		{"hop away", good, []string{"--via", closedPort(t)}, []string{"workload at 127.0.0.1:", "refused", "dataplane-mode=ambient"}},
		{"certificate file missing", good, []string{"--cert", "/nonexistent/chain.pem"}, []string{"/nonexistent/chain.pem", "no such file", "--cert"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.shop.dial(t, append([]string{"--http", "/"}, c.more...)...)
			r.want(t, exitFailed, r.stderr, append([]string{"error:"}, c.want...)...)
			if r.stdout != "" {
				t.Errorf("standard output has %q", r.stdout)
			}
		})
	}
	t.Run("a second --peer widens", func(t *testing.T) {
		r := good.dial(t, "--http", "/", "--peer", "spiffe://cluster.local/ns/shop/sa/other")
		r.want(t, exitOK, r.stdout, "three orders")
	})
	t.Run("impostor", func(t *testing.T) {
		flags := append([]string{"dial", good.app, "--http", "/"}, good.flags...)
		for i, f := range flags {
			if f == "--peer" {
				flags[i+1] = "spiffe://cluster.local/ns/shop/sa/other"
			}
		}
		r := isthmus(t, flags...)
		r.want(t, exitFailed, r.stderr, "workload at 127.0.0.1:", "it is spiffe://cluster.local/ns/shop/sa/orders", "expected spiffe://cluster.local/ns/shop/sa/other", "next:")
	})
}

func TestDialWithoutIstiod(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	jwt := func(payload string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	roots := write("roots.pem", string(identitytest.PEM(identitytest.NewCA(account("a", "b").TrustDomain()).Root)))
	token := write("token", jwt(`{"sub":"system:serviceaccount:edge:gateway"}`))
	away := closedPort(t)
	authority, err := istiocatest.New(identitytest.NewCA(account("a", "b").TrustDomain()))
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	its := write("its-roots.pem", string(authority.RootPEM()))
	misnamed := []string{"--token-file", token, "--ca-roots", its, "--istiod", authority.Address(), "--istiod-name", "elsewhere"}
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"no token", []string{"--token-file", dir + "/none"}, []string{"no token", dir + "/none", "kubectl create token"}},
		{"no token, though it is said whose", []string{"--token-file", dir + "/none", "--ca-roots", roots, "--service-account", "edge/gateway"}, []string{"istiod gave no certificate", dir + "/none", "name one with --token-file", "kubectl create token"}},
		{"no token, and only the way is asked for", []string{"--token-file", dir + "/none", "--ca-roots", roots, "--service-account", "edge/gateway", "--route"}, []string{"did not say how to reach", dir + "/none", "name one with --token-file", "kubectl create token"}},
		{"no token, and nothing but the way", []string{"--token-file", dir + "/none", "--route"}, []string{"no token", dir + "/none", "--via and --peer"}},
		{"not a token", []string{"--token-file", write("text", "hello")}, []string{"not that of a service account", "text", "no JWT", "kubectl create token"}},
		{"not base64", []string{"--token-file", write("base", "a.!.c")}, []string{"not base64"}},
		{"not JSON", []string{"--token-file", write("json", jwt("x"))}, []string{"not JSON"}},
		{"a user's token", []string{"--token-file", write("user", jwt(`{"sub":"alice"}`))}, []string{"not that of a service account", `"alice"`}},
		{"no roots", []string{"--token-file", token, "--ca-roots", dir + "/none"}, []string{"istiod " + away, dir + "/none", "istio-ca-root-cert"}},
		{"istiod away", []string{"--token-file", token, "--ca-roots", roots}, []string{"istiod " + away, "refused", "istiod runs", "--istiod"}},
		{"istiod has another name", misnamed, []string{"istiod " + authority.Address(), "istiod.istio-system.svc", "--istiod-name is elsewhere"}},
		{"istiod has another name, and only the way is asked for", append(misnamed, "--route"), []string{"istiod " + authority.Address(), "istiod.istio-system.svc", "--istiod-name is elsewhere"}},
		{"istiod has other roots", []string{"--token-file", token, "--ca-roots", roots, "--istiod", authority.Address()}, []string{"istiod " + authority.Address(), "holds this mesh's root", "istio-ca-root-cert"}},
		{"istiod has no address", []string{"--token-file", token, "--ca-roots", roots, "--istiod", "istiod.invalid:15012"}, []string{"istiod.invalid:15012", "--istiod"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("POD_IP", "")
			args := append([]string{"dial", "orders.shop.svc.cluster.local:80"}, c.args...)
			if !slices.Contains(c.args, "--istiod") {
				args = append(args, "--istiod", away)
			}
			want := append([]string{"error:"}, c.want...)
			r := isthmus(t, append(args, "--timeout", "300ms")...)
			if !says(r.stderr, want...) { // on a busy machine nobody has answered by then, and that is all that can be told
				r = isthmus(t, append(args, "--timeout", "10s")...)
			}
			r.want(t, exitFailed, r.stderr, want...)
		})
	}
}
