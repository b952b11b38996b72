package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

const (
	cutWindow = 70_000
	cutBytes  = 3 * cutWindow
)

// waitingWrite is a tunnel whose near end waits in a Write of cutBytes for window, after cutWindow.
func waitingWrite(t *testing.T) (a, b *Stream, wrote <-chan error) {
	t.Helper()
	client, _, streams := pair(t, Config{}, Config{StreamWindow: cutWindow, MaxStreamWindow: 1})
	a, b = tunnel(t, client, streams)
	outcome := make(chan error, 1)
	go func() {
		_, err := a.Write(make([]byte, cutBytes))
		outcome <- err
	}()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		client.mu.Lock()
		waits := a.ww != nil && a.sendWindow == 0 && !client.out.flushing
		client.mu.Unlock()
		if waits {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the Write does not wait")
		}
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	return a, b, outcome
}

// wantAll reads to the end.
func wantAll(t *testing.T, b *Stream, most int64, end error) {
	t.Helper()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{b})
	if n != most || !errors.Is(err, end) {
		t.Errorf("the peer read %d bytes and %v, want %d and %v", n, err, most, end)
	}
}

// Close beside a Write that waits: the peer hears of it, and not as of a clean end.
func TestCloseCutsAWriteOff(t *testing.T) {
	a, b, wrote := waitingWrite(t)
	a.Close()
	if err := <-wrote; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the Write gave %v, want net.ErrClosed", err)
	}
	wantAll(t, b, cutWindow, syscall.ECONNRESET)
	b.Close()
	if n := a.Conn().Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// CloseWrite beside a Write that waits: all of it arrives, and then the end.
func TestCloseWriteFollowsAWrite(t *testing.T) {
	a, b, wrote := waitingWrite(t)
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, b, cutBytes, nil)
	if err := <-wrote; err != nil {
		t.Errorf("the Write gave %v", err)
	}
	if _, err := a.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a later Write gave %v, want EPIPE", err)
	}
}

// CloseWrite beside a Write whose deadline then passes: the end follows what the Write says that it sent.
func TestCloseWriteFollowsAWriteThatGivesUp(t *testing.T) {
	a, b, wrote := waitingWrite(t)
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = a.SetWriteDeadline(time.Now())
	if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the Write gave %v", err)
	}
	wantAll(t, b, cutWindow, nil)
}
