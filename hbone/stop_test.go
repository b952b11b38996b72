package hbone_test

import (
	"net"
	"testing"
	"time"
)

// Close of a server ends all, also what an application does not take of a client that has sent all and gone.
func TestCloseOfAServerLeavesAnApplicationThatDoesNotRead(t *testing.T) {
	for name, edit := range ways() {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			m := newMesh(t, func(c net.Conn) {
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				<-release
				c.Close()
			}, edit)
			defer close(release)
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
			ended := make(chan struct{})
			go func() { defer close(ended); m.server.Close() }()
			select {
			case <-ended:
			case <-time.After(8 * time.Second):
				t.Error("Close waits for the application")
			}
		})
	}
}
