//go:build linux

package h2

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// leftover is a joined tunnel whose client has sent more than the application takes, ended, and gone.
func leftoverOf(t *testing.T, scfg Config) (*joinery, *net.TCPConn) {
	t.Helper()
	j := newJoineryOf(t, Config{}, scfg)
	s, app := j.open(t)
	_ = app.SetReadBuffer(32 << 10)
	_ = s.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for { // until the socket is full, and then the window
		if _, err := s.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		j.client.mu.Lock()
		window := s.sendWindow
		j.client.mu.Unlock()
		if window < 128<<10 {
			break
		}
	}
	s.Close() // END_STREAM, and that nothing more is read
	eventually(t, "the server knows", func() bool { return j.server.Streams() == 0 })
	return j, app
}

// within ends a test that waits for what should not be waited for.
func within(t *testing.T, f func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(8 * time.Second): // before grace
		t.Error("it waits for an application that does not read")
		return nil
	}
}

// Close waits for no application.
func TestCloseLeavesAnApplicationThatDoesNotRead(t *testing.T) {
	j, app := leftoverOf(t, Config{})
	defer app.Close()
	_ = within(t, j.server.Close)
	wantEnd(t, app, syscall.ECONNRESET)
}

// Shutdown waits for one as long as its context says.
func TestShutdownLeavesAnApplicationThatDoesNotRead(t *testing.T) {
	j, app := leftoverOf(t, Config{})
	defer app.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := within(t, func() error { return j.server.Shutdown(ctx) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown gave %v", err)
	}
	wantEnd(t, app, syscall.ECONNRESET)
}

// What an application does not take is given up in time.
func TestAnApplicationThatDoesNotReadIsGivenUp(t *testing.T) {
	const limit = 200 * time.Millisecond
	began := time.Now()
	j, app := leftoverOf(t, Config{LeftoverTimeout: limit})
	defer app.Close()
	eventually(t, "the socket is closed", func() bool { return j.held() == 0 })
	if took := time.Since(began); took < limit || took > grace {
		t.Errorf("it was given up after %v", took)
	}
	wantEnd(t, app, syscall.ECONNRESET)
}

// One that reads slowly gets everything.
func TestAnApplicationThatReadsSlowlyIsNotGivenUp(t *testing.T) {
	const limit = 2 * time.Second // TCP tells of 64 KiB at once
	j, app := leftoverOf(t, Config{LeftoverTimeout: limit})
	defer app.Close()
	buf := make([]byte, 2<<10)
	for end := time.Now().Add(limit * 3 / 2); time.Now().Before(end); time.Sleep(limit / 100) {
		if _, err := io.ReadFull(app, buf); err != nil {
			t.Fatal(err)
		}
	}
	if j.held() != 1 {
		t.Fatal("there was too little left for this test")
	}
	wantEnd(t, app, nil)
}

// A read ends at urgent data (RFC 6093), though more is behind it, of which no event tells.
func TestBytesBehindUrgentData(t *testing.T) {
	j := newJoinery(t, Config{})
	s, app := j.open(t)
	defer app.Close()
	defer s.Close()
	_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
	rc, err := app.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // the order of events is not always the same
		var sent error
		err := rc.Control(func(fd uintptr) {
			_, before := syscall.Write(int(fd), []byte("four"))
			urgent := syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil)
			_, behind := syscall.Write(int(fd), []byte("four"))
			sent = errors.Join(before, urgent, behind)
		})
		if err != nil || sent != nil {
			t.Fatal(err, sent)
		}
		read4(t, s)
		read4(t, s)
	}
}

// Reset at the server, when a policy denies the tunnel now, does not let the application have the rest, nor take it for all.
func TestResetOfAJoinedTunnelThatItsClientEnded(t *testing.T) {
	for name, end := range map[string]func(s *Stream){
		"half-closed": func(s *Stream) { _ = s.CloseWrite() },
		"closed":      func(s *Stream) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoinery(t, Config{})
			s, app := j.open(t)
			defer app.Close()
			write4(t, s)
			read4(t, app)
			j.server.mu.Lock()
			at := j.server.streams[s.id]
			j.server.mu.Unlock()
			end(s)
			wantEnd(t, app, nil)
			eventually(t, "the server knows", func() bool {
				j.server.mu.Lock()
				defer j.server.mu.Unlock()
				return at.recvEnd && (name == "half-closed" || at.isDone)
			})
			at.Reset(http2.ErrCodeCancel)
			// Whoever is reading or writing at that moment closes the socket when he is done.
			eventually(t, "the socket is closed", func() bool { return j.held() == 0 })
			if _, err := app.Write([]byte("four")); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the application wrote: %v", err)
			}
			s.Close()
		})
	}
}
