package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// TestAControllerIsNotReadyBeforeItHasReadTheCluster: what sends requests to a pod that is ready, or rolls the next one, must not take it for one that works. It has its
// identity at once here; one list is held back.
func TestAControllerIsNotReadyBeforeItHasReadTheCluster(t *testing.T) {
	ca := identitytest.NewCA(account("a", "b").TrustDomain())
	svid := ca.SVID(account("isthmus-system", "isthmus-controller"))
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := controlled()
	var once sync.Once
	asked, release := make(chan struct{}), make(chan struct{})
	c.requests = func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/daemonsets") {
			once.Do(func() { close(asked) })
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	}
	c.start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan result, 1)
	go func() {
		ended <- isthmusApart(t, ctx, "controller", "--health-probe-bind-address", address, "--identity", "files",
			"--cert", write("chain.pem", identitytest.PEM(svid.Certificates...)), "--key", write("key.pem", identitytest.KeyPEM(svid.PrivateKey)),
			"--roots", write("roots.pem", identitytest.PEM(ca.Bundle().X509Authorities()...)))
	}()
	defer func() {
		stop()
		r := <-ended
		r.want(t, exitOK, r.stderr, "isthmus controller")
	}()
	answer := func() (int, string) {
		res, err := http.Get("http://" + address + "/readyz?verbose=1")
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	wait := func(what string, done func(int, string) bool) {
		t.Helper()
		for {
			status, text := answer()
			if done(status, text) {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%s: it answers %d, %s", what, status, text)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	<-asked
	identified := func(text string) bool { return strings.Contains(text, "[+]identity ok") }
	wait("it has an identity, and has not read the cluster", func(status int, text string) bool {
		if status == http.StatusOK {
			t.Fatalf("it is ready, and has not read the DaemonSets: %s", text)
		}
		return identified(text) && strings.Contains(text, "[-]cluster failed")
	})
	for range 10 {
		if status, text := answer(); status == http.StatusOK {
			t.Fatalf("it is ready, and has not read the DaemonSets: %s", text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	close(release)
	wait("all is read", func(status int, text string) bool { return status == http.StatusOK && identified(text) })
}
