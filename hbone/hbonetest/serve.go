package hbonetest

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/net/http2"
)

// Serve takes connections from l as AcceptTLS does, until l is closed, and runs script on each in a goroutine of its own. Handshakes that
// fail are passed over. A Want method that fails ends its script and fails the test. It returns at once; l is closed, and scripts
// are waited for, when the test ends.
func Serve(t testing.TB, l net.Listener, id x509svid.Source, script func(p *Peer), list ...http2.Setting) {
	t.Helper()
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert,
		Certificates:           []tls.Certificate{certificate(t, id)},
		SessionTicketsDisabled: true,
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, nc := range open {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, nc)
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				tc := tls.Server(nc, config)
				if tc.HandshakeContext(t.Context()) != nil {
					return
				}
				p := newPeer(scripted{t}, tc, false)
				if p.TrySend(Settings{List: list}) == nil {
					script(p)
				}
			})
		}
	})
}

// scripted is a test whose failure ends the goroutine that it is noticed in.
type scripted struct{ testing.TB }

func (s scripted) Fatalf(format string, args ...any) {
	s.Helper()
	s.Errorf(format, args...)
	runtime.Goexit()
}

func (s scripted) Fatal(args ...any) {
	s.Helper()
	s.Error(args...)
	runtime.Goexit()
}

// Cleanup does nothing: who made the connection closes it.
func (s scripted) Cleanup(func()) {}
