package h2_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// A CONNECT that waited behind others when the connection ended has not been seen by anybody: it may be tried elsewhere, and must not leave
// after all. One that was on its way may have been seen.
func TestAConnectThatNeverLeftIsUnprocessed(t *testing.T) {
	ends := map[string]func(p *hbonetest.Peer, c *h2.Conn){
		"closed here": func(_ *hbonetest.Peer, c *h2.Conn) { go c.Close() },
		"cut":         func(p *hbonetest.Peer, _ *h2.Conn) { p.Conn.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const much = 7 << 20
				p, c := asClient(t, h2.Config{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 8 << 20})
				opened := open(t, c)
				p.Send(hbonetest.WindowUpdate{Increment: 8 << 20}, hbonetest.Answer(p.WantConnect(target), 200))
				s, err := opened.Wait()
				if err != nil {
					t.Fatal(err)
				}
				sent, err := c.Start(hbonetest.Connect(target))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				write := hbonetest.Go(func() (int, error) { return s.Write(make([]byte, much)) })
				synctest.Wait() // nobody reads it: the connection is full
				late, err := c.Start(hbonetest.Connect(target))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				end(p, c)
				synctest.Wait()
				if err := late.Answer(); !errors.Is(err, h2.ErrUnprocessed) {
					t.Errorf("the one that never left: %v", err)
				}
				if err := sent.Answer(); err == nil || errors.Is(err, h2.ErrUnprocessed) {
					t.Errorf("the one that did: %v", err)
				}
				if n, err := write.Wait(); err == nil || errors.Is(err, h2.ErrUnprocessed) {
					t.Errorf("the write took %d bytes, %v", n, err)
				}
				for {
					f, err := p.Next()
					if err != nil {
						break
					}
					if h, ok := f.(hbonetest.Headers); ok && h.Stream != 3 {
						t.Errorf("stream %d came after all", h.Stream)
					}
				}
			})
		})
	}
}
