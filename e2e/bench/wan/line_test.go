package wan

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const oneWay = 30 * time.Millisecond

// through gives both ends of a connection over a line, and when it was begun.
func through(t *testing.T, ln *Line) (near, far *net.TCPConn, begun time.Time) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Target = target.Addr().String()
	served := make(chan error, 1)
	go func() { served <- ln.Serve(l) }()
	begun = time.Now()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
		l.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return a.(*net.TCPConn), b.(*net.TCPConn), begun
}

func TestBytesComeLateButAll(t *testing.T) {
	for name, dial := range map[string]func(network, address string) (net.Conn, error){
		"TCP": nil,
		"another connection": func(network, address string) (net.Conn, error) {
			c, err := net.Dial(network, address)
			if err != nil {
				return nil, err
			}
			return struct{ *net.TCPConn }{c.(*net.TCPConn)}, nil
		},
	} {
		t.Run(name, func(t *testing.T) { late(t, &Line{OneWay: oneWay, Dial: dial}) })
	}
}

func late(t *testing.T, ln *Line) {
	near, far, begun := through(t, ln)
	data := make([]byte, 8<<20)
	rand.Read(data)
	go func() {
		if _, err := near.Write(data); err != nil {
			t.Error(err)
		}
		near.CloseWrite()
	}()
	var one [1]byte
	if _, err := io.ReadFull(far, one[:]); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 3*oneWay { // a round trip for the connection, and one way
		t.Errorf("the first byte took %v", took)
	}
	rest, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(append(one[:], rest...), data) {
		t.Errorf("%d bytes came, %v", len(rest)+1, err)
	}
	begin := time.Now()
	if _, err := far.Write([]byte("x")); err != nil { // the other direction goes on
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near, one[:]); err != nil || one[0] != 'x' {
		t.Errorf("%q, %v", one, err)
	}
	if took := time.Since(begin); took < oneWay {
		t.Errorf("the way back took %v", took)
	}
}

func TestResetsCrossTheLine(t *testing.T) {
	near, far, _ := through(t, &Line{OneWay: time.Millisecond})
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := near.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	near.Close()
	if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// What is under way is bounded: a sender waits, and nothing is lost.
func TestInFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		for range 2 {
			if !q.put(chunk{n: 50}) {
				t.Fatal("closed")
			}
		}
		entered := false
		go func() { entered = q.put(chunk{n: 1}) }()
		synctest.Wait()
		if entered {
			t.Error("a chunk had room that is not there")
		}
		if c := q.take(); c.n != 50 {
			t.Errorf("took %d", c.n)
		}
		q.done(50)
		synctest.Wait()
		if !entered {
			t.Error("a chunk still waits when there is room")
		}
		q.close()
		if q.put(chunk{n: 1}) {
			t.Error("a closed queue takes chunks")
		}
		if !newQueue(10).put(chunk{n: 50}) {
			t.Error("a chunk larger than the limit must pass alone")
		}
	})
}
