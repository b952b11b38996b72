package world_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// late is a connection from which nothing is read before ready is closed.
type late struct {
	*net.TCPConn
	ready chan struct{}
}

func (l *late) Read(p []byte) (int, error) {
	<-l.ready
	return l.TCPConn.Read(p)
}

// TestAnAnswerArrivesThoughNothingCanBeSentAnyMore: an application that answers and closes without having read all resets its connection, behind the answer. Who writes
// to it finds that first, or the client's end of stream does.
func TestAnAnswerArrivesThoughNothingCanBeSentAnyMore(t *testing.T) {
	for name, more := range map[string]string{"the client sends more": "more", "the client has sent all": ""} {
		t.Run(name, func(t *testing.T) {
			client, a := tcpPair(t)
			b, app := tcpPair(t)
			if _, err := client.Write([]byte("request")); err != nil {
				t.Fatal(err)
			}
			back := &late{b, make(chan struct{})}
			joined := make(chan struct{})
			passed := make(chan net.Conn, 16)
			go func() {
				defer close(joined)
				world.Join(a, back, func(from net.Conn) { passed <- from })
			}()
			if from := <-passed; from != a {
				t.Errorf("bytes passed from %v, want the client", from)
			}
			if _, err := io.ReadFull(app, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			if _, err := app.Write([]byte("the answer")); err != nil {
				t.Fatal(err)
			}
			app.Close() // with four bytes that it has not read
			if _, err := client.Write([]byte(more)); err != nil {
				t.Fatal(err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // who writes to the application finds that it is gone
			close(back.ready)
			got := make([]byte, len("the answer"))
			if n, err := io.ReadFull(client, got); err != nil || string(got) != "the answer" {
				t.Fatalf("the client got %q, %v", got[:n], err)
			}
			if _, err := client.Read(got); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Errorf("behind the answer the client got %v", err)
			}
			<-joined
		})
	}
}

// TestJoinedConnectionsEndAsTheyWouldAlone: an end of stream passes on as one, and the other direction goes on; a reset as a reset.
func TestJoinedConnectionsEndAsTheyWouldAlone(t *testing.T) {
	client, a := tcpPair(t)
	b, app := tcpPair(t)
	go world.Join(a, b, nil)
	if _, err := client.Write([]byte("ask")); err != nil {
		t.Fatal(err)
	}
	client.CloseWrite()
	if got, err := io.ReadAll(app); err != nil || string(got) != "ask" {
		t.Errorf("the application got %q, %v", got, err)
	}
	if _, err := app.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	app.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client got %q, %v", got, err)
	}

	client, a = tcpPair(t)
	b, app = tcpPair(t)
	go world.Join(a, b, nil)
	world.Reset(client)
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client has reset, and the application got %v", err)
	}
}
