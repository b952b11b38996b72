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

// TestAControllerIsNotReadyBeforeItHasReadTheCluster: what sends requests to a pod that is ready, or rolls the next one, must not take it for one that works. One list does not
// come here. That it gets ready otherwise is seen on a real API server, in e2e/controllertest.
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
	asked := make(chan struct{})
	c.requests = func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/daemonsets") {
			once.Do(func() { close(asked) })
			<-r.Context().Done()
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
	unread := func(status int, text string) bool {
		if status == http.StatusOK || strings.Contains(text, "[+]cluster ok") {
			t.Fatalf("it has not read the DaemonSets, and answers %d, %s", status, text)
		}
		return strings.Contains(text, "[-]cluster failed")
	}
	wait("it says that it has not read the cluster", unread)
	for range 10 {
		unread(answer())
		time.Sleep(20 * time.Millisecond)
	}
}
