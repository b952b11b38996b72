package h2_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

func window(v uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: v} }

// take reads DATA on stream 1 until n bytes are there, and fails when there are more.
func take(t *testing.T, p *hbonetest.Peer, n int) {
	t.Helper()
	got := 0
	for got < n {
		f, err := p.Next()
		if err != nil {
			t.Fatalf("%d of %d bytes came: %v", got, n, err)
		}
		if d, ok := f.(hbonetest.Data); ok {
			if len(d.Bytes) == 0 && !d.End {
				t.Error("an empty DATA frame came")
			}
			got += len(d.Bytes)
		}
	}
	if got != n {
		t.Fatalf("%d bytes came where the window allows %d", got, n)
	}
}

// A sender stops at the stream's window and goes on with its WINDOW_UPDATE (section 6.9.1).
func TestConformance6_9_1SenderObeysTheStreamsWindow(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		write := hbonetest.Go(func() (int, error) { return w.s.Write(make([]byte, 3000)) })
		take(t, w.p, 1000)
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 1})
		take(t, w.p, 1)
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 1999})
		take(t, w.p, 1999)
		if n, err := write.Wait(); n != 3000 || err != nil {
			t.Errorf("write gave %d, %v", n, err)
		}
	}, window(1000))
}

// A sender stops at the connection's window, which is 65535 at first whatever SETTINGS say (section 6.9.2).
func TestConformance6_9_1SenderObeysTheConnectionsWindow(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		go w.s.Write(make([]byte, 70_000))
		take(t, w.p, 65535)
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 1}) // not what it waits for
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Increment: 4465})
		take(t, w.p, 4465)
	}, window(1<<20))
}

// A window of 0 stops DATA, but neither END_STREAM nor answers, PINGs and resets.
func TestConformance6_9OnlyDataIsFlowControlled(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.WantQuiet() // PING
		if err := w.s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := w.p.WantEnd(1); len(got) > 0 {
			t.Errorf("%d bytes came", len(got))
		}
		w.s.Reset(http2.ErrCodeCancel)
		w.p.WantReset(1, http2.ErrCodeCancel)
	}, window(0))
}

// END_STREAM does not overtake bytes that wait for a window.
func TestConformance6_9EndWaitsBehindItsData(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		done := hbonetest.Go(func() (int, error) {
			n, err := w.s.Write([]byte("0123456789"))
			if err == nil {
				err = w.s.CloseWrite()
			}
			return n, err
		})
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 4})
		w.p.WantData(1, []byte("0123"))
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 6})
		if got := w.p.WantEnd(1); string(got) != "456789" {
			t.Errorf("%q came", got)
		}
		if _, err := done.Wait(); err != nil {
			t.Error(err)
		}
	}, window(0))
}

// SETTINGS change the windows of open streams, also below zero (section 6.9.2).
func TestConformance6_9_2WindowsMayBecomeNegative(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		go w.s.Write(make([]byte, 2000))
		take(t, w.p, 1000)
		w.p.Send(hbonetest.Settings{List: []http2.Setting{window(100)}}) // now -900
		w.p.WantQuiet()
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 900}) // now 0
		w.p.WantQuiet()
		w.p.Send(hbonetest.Settings{List: []http2.Setting{window(7), window(150)}}) // the last counts: now 50
		take(t, w.p, 50)
		w.p.WantQuiet()
		w.p.Send(hbonetest.Settings{List: []http2.Setting{window(1100)}})
		take(t, w.p, 950)
	}, window(1000))
}

// A window may be as large as 2^31-1.
func TestConformance6_9_1TheLargestWindow(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 1<<31 - 1 - 65535}, hbonetest.WindowUpdate{Increment: 1<<31 - 1 - 65535})
		w.p.WantQuiet()
		w.wantAlive(t)
	})
}

// A receiver grants what it has announced, no less: all of the stream's window before anybody reads.
func TestConformance6_9TheAnnouncedWindowMayBeUsed(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		granted, ok := w.p.Setting(http2.SettingInitialWindowSize)
		if !ok {
			granted = 65535
		}
		for left := int(granted); left > 0; left -= 16 << 10 {
			w.p.Send(hbonetest.Data{Stream: 1, Bytes: make([]byte, min(left, 16<<10))})
		}
		w.p.WantQuiet()
	}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
}

// Credit comes back as the user reads, without which a long transfer stops; padding is paid back as well (section 6.9.1).
func TestConformance6_9_1CreditComesBack(t *testing.T) {
	for name, pad := range map[string]uint8{"data": 0, "padding": 255} {
		t.Run(name, func(t *testing.T) {
			inBothRoles(t, h2.Config{StreamWindow: 65535, ConnWindow: 65535}, func(t *testing.T, w world) {
				go io.Copy(io.Discard, plain{w.s})
				n := 256 + int(pad) + min(int(pad), 1)
				for sent := 0; sent < 20*65535; sent += n {
					for w.p.Credit(1) < int64(n) || w.p.Credit(0) < int64(n) {
						if _, err := w.p.Next(); err != nil {
							t.Fatalf("no credit after %d bytes: %v", sent, err)
						}
					}
					w.p.Send(hbonetest.Data{Stream: 1, Bytes: make([]byte, 256), Pad: pad})
				}
			})
		})
	}
}

// More than the connection's window is FLOW_CONTROL_ERROR for the connection.
func TestConformance6_9_1MoreThanTheConnectionsWindow(t *testing.T) {
	inBothRoles(t, h2.Config{StreamWindow: 1 << 20, ConnWindow: 65535}, func(t *testing.T, w world) {
		w.p.Sync()
		w.p.Send(hbonetest.Raw{Type: http2.FrameData, Stream: 1, Length: uint32(w.p.Credit(0) + 1)}) // the header is enough
		w.p.WantGoAway(http2.ErrCodeFlowControl)
		wantLost(t, w.s)
	})
}

// One tunnel that nobody reads does not stop another (section 5.2).
func TestConformance5_2AStalledTunnelStopsNoOther(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{StreamWindow: 256 << 10, ConnWindow: 512 << 10})
	tunnels := make([]*h2.Stream, 9)
	for i := range tunnels {
		id := uint32(2*i + 1)
		p.Send(hbonetest.Open(id, target))
		tunnels[i] = next(t, streams)
		if err := tunnels[i].Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(id, 200)
	}
	for i := range 8 { // all that each window takes, and nobody reads
		id := uint32(2*i + 1)
		p.SendData(id, make([]byte, p.Credit(id)), 0)
	}
	want := bytes.Repeat([]byte("x"), 10_000)
	p.SendData(17, want, 0)
	got := make([]byte, len(want))
	_ = tunnels[8].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(tunnels[8], got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the ninth tunnel: %v", err)
	}
}

// DATA frames are no larger than the peer takes (section 4.2): 16 KiB at first, what SETTINGS allow later.
func TestConformance4_2SenderObeysMaxFrameSize(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		largest := func(n int) (most int) {
			go w.s.Write(make([]byte, n))
			for got := 0; got < n; {
				f, err := w.p.Next()
				if err != nil {
					t.Fatal(err)
				}
				if d, ok := f.(hbonetest.Data); ok {
					got, most = got+len(d.Bytes), max(most, len(d.Bytes))
				}
			}
			return most
		}
		w.p.Send(hbonetest.WindowUpdate{Increment: 1 << 24})
		w.p.Sync()
		if n := largest(500_000); n > 16<<10 {
			t.Errorf("a frame of %d bytes came, 16384 are allowed", n)
		}
		w.p.Send(hbonetest.Settings{List: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 20_000}}})
		w.p.Sync()
		if n := largest(500_000); n > 20_000 {
			t.Errorf("a frame of %d bytes came, 20000 are allowed", n)
		}
		w.p.Send(hbonetest.Settings{List: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 16 << 10}}})
		w.p.Sync()
		if n := largest(500_000); n > 16<<10 {
			t.Errorf("a frame of %d bytes came after the limit was lowered", n)
		}
	}, window(1<<24))
}
