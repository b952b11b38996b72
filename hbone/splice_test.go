package hbone_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// The client sends much, closes, and reads nothing; the application talks all the while, and reads late.
func TestWhatAClosedClientHasSentArrives(t *testing.T) {
	want := make([]byte, 4<<20)
	rand.Read(want)
	got := make(chan []byte, 1)
	m := newMesh(t, func(c net.Conn) {
		talk := make(chan struct{})
		go func() {
			defer close(talk)
			for {
				if _, err := c.Write(make([]byte, 100)); err != nil {
					return
				}
			}
		}()
		b, _ := io.ReadAll(c)
		got <- b
		c.Close()
		<-talk
	}, nil)
	c := m.dial(t)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case b := <-got:
		if !bytes.Equal(b, want) {
			t.Errorf("%d of %d bytes arrived", len(b), len(want))
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the application waits for ever")
	}
}

// The client goes away in the middle: the application must not think that it has all.
func TestAnAbortInTheMiddleIsSeenAsOne(t *testing.T) {
	got := make(chan error, 1)
	m := newMesh(t, func(c net.Conn) {
		_, err := io.Copy(io.Discard, c)
		got <- err
		c.Close()
	}, nil)
	c := m.dial(t)
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	c.Reset()
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the application read %v", err)
	}
}
