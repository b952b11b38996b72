package hbone_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2"
)

// wide lets a peer take much before it must give credit.
var wide = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 8 << 20}

// saturate fills a connection whose peer reads nothing.
func saturate(t *testing.T, s *script, p *hbonetest.Peer, call *hbonetest.Call[net.Conn]) *hbonetest.Call[int] {
	t.Helper()
	p.Send(hbonetest.WindowUpdate{Increment: 8 << 20})
	p.Send(hbonetest.Answer(p.WantConnect(target), 200))
	c := got(t, call)
	write := hbonetest.Go(func() (int, error) { return c.Write(make([]byte, 7<<20)) })
	time.Sleep(5 * time.Second)
	return write
}

func TestABusyConnectionGetsACompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.pool.MaxConns = 2
		call := s.dial(t)
		first := s.peer(t, wide)
		write := saturate(t, s, first, call)
		// The next tunnel does not wait: it goes the same way, and a further connection is made meanwhile.
		beside := s.dial(t)
		relief := s.peer(t, wide)
		synctest.Wait()
		third := s.dial(t)
		relief.Send(hbonetest.Answer(relief.WantConnect(target), 200))
		got(t, third).Close()
		if st := s.pool.Stats(); st.Conns != 2 || st.Tunnels < 2 {
			t.Errorf("%+v", st)
		}
		s.pool.Close()
		for what, err := range map[string]error{"the blocked write": second(write.Wait()), "the dial that went the busy way": second(beside.Wait())} {
			if err == nil {
				t.Errorf("%s succeeded", what)
			}
		}
	})
}

func TestNoMoreCompanionsThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.pool.MaxConns = -1
		call := s.dial(t)
		first := s.peer(t, wide)
		write := saturate(t, s, first, call)
		beside := s.dial(t)
		synctest.Wait()
		if n := s.l.Made(); n != 1 {
			t.Errorf("%d connections", n)
		}
		s.pool.Close()
		if _, err := write.Wait(); err == nil {
			t.Error("the write succeeded")
		}
		if _, err := beside.Wait(); err == nil {
			t.Error("the dial succeeded")
		}
	})
}

// A connection that was to relieve another cannot be made: nobody is told, and it is not tried all the time.
func TestACompanionThatCannotBeMadeHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.pool.MaxConns = 2
		call := s.dial(t)
		first := s.peer(t, wide)
		write := saturate(t, s, first, call)
		failed := make(chan error, 10)
		s.dialer.Trace = &hbone.Trace{HandshakeDone: func(c hbone.TraceConn) { failed <- c.Err }}
		s.l.Close()
		var calls []*hbonetest.Call[net.Conn]
		for range 5 {
			calls = append(calls, s.dial(t))
			synctest.Wait()
		}
		if n := len(failed); n != 1 {
			t.Errorf("%d attempts", n)
		}
		s.pool.Close()
		for _, call := range calls {
			if _, err := call.Wait(); err == nil {
				t.Error("it succeeded without an answer")
			} else if !errors.Is(err, net.ErrClosed) { // the pool's: the CONNECT never left, and there is no other place
				t.Errorf("the dial was told of the companion: %v", err)
			}
		}
		if _, err := write.Wait(); err == nil {
			t.Error("the write succeeded")
		}
	})
}

func TestAConnectionThatCarriedMuchIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		m.pool.MaxBytes = 1 << 20
		c := m.open(t)
		echoed := make([]byte, 64<<10)
		for range 17 {
			go c.Write(make([]byte, len(echoed)))
			for n := 0; n < len(echoed); {
				k, err := c.Read(echoed)
				if err != nil {
					t.Fatal(err)
				}
				n += k
			}
		}
		works(t, m.open(t))
		time.Sleep(11 * time.Second)
		works(t, m.open(t))
		works(t, c)
		if n := m.dialled.Load(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}
