package h2_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// What healthy peers do must never look like abuse (ztunnel#2100: many small packets were taken for a flood).

// wantHealthy checks that nobody was cut off.
func wantHealthy(t *testing.T, c *h2.Conn) {
	t.Helper()
	if err := c.Err(); err != nil {
		t.Fatalf("the connection was ended: %v", err)
	}
}

func TestHealthySmallPackets(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		go io.Copy(io.Discard, plain{w.s})
		n := 200_000
		if testing.Short() {
			n = 30_000
		}
		var batch []hbonetest.Frame
		for range 100 {
			batch = append(batch, hbonetest.Data{Stream: 1, Bytes: []byte("x")})
		}
		for i := 0; i < n; i += len(batch) {
			for w.p.Credit(1) < 1000 || w.p.Credit(0) < 1000 {
				if _, err := w.p.Next(); err != nil {
					t.Fatal(err)
				}
			}
			w.p.Send(batch...)
		}
		w.p.WantQuiet()
		wantHealthy(t, w.c)
	})
}

// A peer that returns credit in small steps, as golang.org/x/net does (every 4 KiB, for the stream and the connection), while it is sent a
// gigabyte and sends nothing itself.
func TestHealthySmallWindowUpdates(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		const total = 64 << 20 // 16,384 of each kind, more than what is a flood
		go func() {
			buf := make([]byte, 64<<10)
			for sent := 0; sent < total; sent += len(buf) {
				if _, err := w.s.Write(buf); err != nil {
					return
				}
			}
			_ = w.s.CloseWrite()
		}()
		unpaid := 0
		for got := 0; got < total; {
			f, err := w.p.NextRaw()
			if err != nil {
				t.Fatalf("after %d MiB: %v; %v", got>>20, err, w.c.Err())
			}
			switch f.Type {
			case http2.FrameData:
				got, unpaid = got+len(f.Payload), unpaid+len(f.Payload)
				for ; unpaid >= 4<<10; unpaid -= 4 << 10 {
					w.p.Send(hbonetest.WindowUpdate{Increment: 4 << 10}, hbonetest.WindowUpdate{Stream: 1, Increment: 4 << 10})
				}
			case http2.FramePing:
				if !f.Flags.Has(http2.FlagPingAck) {
					w.p.Send(hbonetest.Ping{Data: [8]byte(f.Payload), Ack: true})
				}
			case http2.FrameGoAway:
				t.Fatalf("after %d MiB: GOAWAY %x %s", got>>20, f.Payload[4:8], f.Payload[8:])
			}
		}
		wantHealthy(t, w.c)
	})
}

// ztunnel's pattern: DATA of 1 KiB, then of 16,320 bytes, a PING now and then.
func TestHealthyZtunnelPattern(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		sum := hbonetest.Go(func() (int64, error) { return io.Copy(io.Discard, plain{w.s}) })
		want := int64(0)
		send := func(n, size int) {
			w.p.SendData(1, make([]byte, n), size)
			w.p.Send(hbonetest.Ping{Data: [8]byte{1}})
			want += int64(n)
		}
		send(128<<10, 1024)
		send(8<<20, 16320)
		w.p.Send(hbonetest.Data{Stream: 1, End: true})
		if got, err := sum.Wait(); got != want || err != nil {
			t.Errorf("%d bytes of %d came, %v", got, want, err)
		}
		wantHealthy(t, w.c)
	})
}

// Tunnels whose peer gives no window hold what their writers hold, and no more; others on the connection go on.
func TestAbuseZeroWindowStall(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{MaxStreams: 1000}, window(0))
	const n = 1000
	var tunnels []*h2.Stream
	for i := range n {
		id := uint32(2*i + 1)
		p.Send(hbonetest.Open(id, target))
		s := next(t, streams)
		if err := s.Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(id, 200)
		tunnels = append(tunnels, s)
	}
	m := watch()
	body := make([]byte, 1<<20)
	var calls []*hbonetest.Call[int]
	for _, s := range tunnels[1:] {
		calls = append(calls, hbonetest.Go(func() (int, error) { return s.Write(body) }))
	}
	p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 1 << 20})
	world{p, c, tunnels[0]}.wantAlive(t)
	for _, s := range tunnels[1:] {
		_ = s.SetWriteDeadline(time.Now())
	}
	for i, call := range calls {
		if n, err := call.Wait(); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("tunnel %d wrote %d bytes, %v", i, n, err)
		}
	}
	grown, cpu := m.end()
	t.Logf("%d stalled tunnels: %d KiB of heap, %v of processor", n, grown>>10, cpu.Round(time.Millisecond))
	if grown > memoryLimit+2*(8<<10)*n { // the writers' and callers' own stacks
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	world{p, c, tunnels[0]}.wantAlive(t)
}

// A peer with large windows that reads nothing makes us hold no more than a batch; the writers wait and obey their deadlines.
func TestAbuseSlowReader(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{}, window(1<<30))
	p.Send(hbonetest.WindowUpdate{Increment: 1 << 30})
	const n = 100
	var tunnels []*h2.Stream
	for i := range n {
		p.Send(hbonetest.Open(uint32(2*i+1), target))
		s := next(t, streams)
		if err := s.Respond(); err != nil {
			t.Fatal(err)
		}
		tunnels = append(tunnels, s)
	}
	m := watch()
	body := make([]byte, 1<<20)
	var calls []*hbonetest.Call[int]
	for _, s := range tunnels {
		_ = s.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		calls = append(calls, hbonetest.Go(func() (int, error) {
			for {
				if n, err := s.Write(body); err != nil {
					return n, err
				}
			}
		}))
	}
	for i, call := range calls {
		if _, err := call.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("tunnel %d: %v", i, err)
		}
	}
	grown, cpu := m.end()
	t.Logf("%d writers against a peer that does not read: %d KiB of heap, %v of processor", n, grown>>10, cpu.Round(time.Millisecond))
	if grown > memoryLimit {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	wantHealthy(t, c)
}

// A window that opens byte by byte is slow for who asks for it, and costs us a frame a byte, not more.
func TestAbuseTinyWindows(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		m := watch()
		write := hbonetest.Go(func() (int, error) { return w.s.Write(make([]byte, 1<<20)) })
		frames, got := 0, 0
		for i := range 5000 {
			if err := w.p.TrySend(hbonetest.WindowUpdate{Stream: 1, Increment: 1}); err != nil {
				break
			}
			f, err := w.p.NextRaw()
			if err != nil {
				break
			}
			if f.Type == http2.FrameData {
				frames++
				if got += len(f.Payload); got > i+1 {
					t.Fatalf("%d bytes came, the window is %d", got, i+1)
				}
			}
		}
		w.s.Reset(http2.ErrCodeCancel)
		n, _ := write.Wait()
		grown, cpu := m.end()
		t.Logf("%d frames for %d bytes, %d KiB of heap, %v of processor", frames, n, grown>>10, cpu.Round(time.Millisecond))
		if grown > memoryLimit {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
	}, window(0))
}
