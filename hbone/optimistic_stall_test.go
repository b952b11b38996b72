package hbone_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2"
)

// narrow is an optimistic tunnel that was opened again at a peer that gives it no window for what was kept.
func narrow(t *testing.T) (c *hbone.Conn, p *hbonetest.Peer, id uint32) {
	t.Helper()
	s := newScript(t)
	s.dialer.Optimistic = true
	s.pool.MaxConns = -1
	call := s.dial(t)
	p = s.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	conn := got(t, call)
	first := p.WantConnect(target)
	synctest.Wait()
	go conn.Write([]byte("kept"))
	synctest.Wait()
	p.Send(hbonetest.Reset{Stream: first, Code: http2.ErrCodeRefusedStream})
	id = p.WantConnect(target)
	synctest.Wait()
	return conn, p, id
}

// A tunnel that is closed while it is opened again leaves nothing at the peer.
func TestCloseWhileATunnelIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, id := narrow(t)
		c.Close()
		synctest.Wait()
		for _, f := range p.Sync() {
			if r, ok := f.(hbonetest.Reset); ok && r.Stream == id {
				return
			}
		}
		t.Error("the peer was not told")
	})
}

// A Write's deadline holds also while what was kept waits.
func TestDeadlineWhileATunnelIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, id := narrow(t)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write([]byte("more"))
			wrote <- err
		}()
		select {
		case err := <-wrote:
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the Write is blocked beyond its deadline")
		}
		p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
		c.Close()
	})
}
