package h2_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// Who is cut off for a reason reads it, at most 256 bytes of it, and knows that bytes may be lost.
func TestAFarewellIsRead(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	call := open(t, c)
	p.WantConnect(target)
	p.Send(hbonetest.Answer(1, 200))
	s, err := call.Wait()
	if err != nil {
		t.Fatal(err)
	}
	p.Send(hbonetest.GoAway{Last: 1, Code: http2.ErrCodeInadequateSecurity, Debug: strings.Repeat("no more of you ", 1000)})
	_ = p.Conn.(interface{ CloseWrite() error }).CloseWrite() // a Close with something unread would throw GOAWAY away
	_, err = s.Read(make([]byte, 1))
	farewell, ok := errors.AsType[*h2.FarewellError](err)
	if !ok || farewell.Code != http2.ErrCodeInadequateSecurity || len(farewell.Why) != 256 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v", err)
	}
}

// Abort tells the peer why, and our own side the cause; the second one changes nothing.
func TestAbort(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		cause := errors.New("revoked")
		w.c.Abort(cause, "you are revoked")
		w.c.Abort(errors.New("again"), "again")
		if f := w.p.WantGoAway(http2.ErrCodeInadequateSecurity); f.Debug != "you are revoked" {
			t.Errorf("the peer was told %q", f.Debug)
		}
		if _, err := w.s.Read(make([]byte, 1)); !errors.Is(err, cause) || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v", err)
		}
		wantEnded(t, w.c)
		if err := w.c.Err(); !errors.Is(err, cause) {
			t.Errorf("it ended with %v", err)
		}
	})
}
