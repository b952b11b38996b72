package hbone_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// Close of a server ends all, also what an application does not take of a client that has sent all, be it still there or gone.
func TestCloseOfAServerLeavesAnApplicationThatDoesNotRead(t *testing.T) {
	for name, edit := range ways() {
		t.Run(name, func(t *testing.T) { closeBeforeApplication(t, edit, false) })
		t.Run(name+", client gone", func(t *testing.T) { closeBeforeApplication(t, edit, true) })
	}
}

func closeBeforeApplication(t *testing.T, edit func(*hbone.Server), gone bool) {
	release, end, lost := make(chan struct{}), make(chan error, 1), make(chan struct{})
	m := newMesh(t, func(c net.Conn) {
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-release
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := io.Copy(io.Discard, c)
		end <- err
	}, func(s *hbone.Server) {
		edit(s)
		s.Trace = &hbone.Trace{ConnClosed: func(hbone.TraceConn) { close(lost) }}
	})
	c := m.dial(t)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Write(make([]byte, 10_000)); err != nil {
			break
		}
	}
	_ = c.SetWriteDeadline(time.Time{})
	_ = c.CloseWrite()
	time.Sleep(50 * time.Millisecond)
	if gone {
		m.dialer.Close()
		<-lost
	}
	ended := make(chan struct{})
	go func() { defer close(ended); m.server.Close() }()
	select {
	case <-ended:
	case <-time.After(8 * time.Second):
		t.Error("Close waits for the application")
	}
	close(release)
	if err := <-end; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the application read to %v, want ECONNRESET", err)
	}
}
