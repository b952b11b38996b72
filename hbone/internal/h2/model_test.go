package h2_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// The model of a tunnel: each direction is a sequence of bytes that follow from their place, an end, and a word whether somebody gave the tunnel up. What is
// read must be those bytes in that order; io.EOF comes exactly where CloseWrite was, and a reset only where somebody reset.

// direction is one half of a modelled tunnel.
type direction struct {
	seed uint64
	from *h2.Stream
	to   *h2.Stream

	mu      sync.Mutex
	written int  // bytes that Write said it took
	trying  int  // bytes that a Write under way may add
	ended   bool // CloseWrite was called
	read    int
}

// tunnelModel is both.
type tunnelModel struct {
	up, down *direction

	mu     sync.Mutex
	killed bool // somebody may have cut it short
}

func (m *tunnelModel) kill() {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
}

func (m *tunnelModel) mayBeCut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killed
}

func pattern(seed uint64, offset int) byte {
	x := seed + uint64(offset)*0x9e3779b97f4a7c15
	return byte(x ^ x>>17 ^ x>>41)
}

// write sends the next n bytes.
func (d *direction) write(m *tunnelModel, n int) error {
	p := make([]byte, n)
	d.mu.Lock()
	for i := range p {
		p[i] = pattern(d.seed, d.written+i)
	}
	d.trying = n
	d.mu.Unlock()
	k, err := d.from.Write(p)
	d.mu.Lock()
	d.written, d.trying = d.written+k, 0
	d.mu.Unlock()
	switch {
	case k < 0 || k > n || err == nil && k != n:
		return fmt.Errorf("write of %d gave %d, %w", n, k, err)
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case !m.mayBeCut() && !d.ended:
		return fmt.Errorf("write: %w, and nobody cut the tunnel", err)
	}
	return nil
}

// closeWrite ends the direction.
func (d *direction) closeWrite(m *tunnelModel) error {
	d.mu.Lock()
	again := d.ended
	d.ended = true // before the other end may see it
	d.mu.Unlock()
	if err := d.from.CloseWrite(); err != nil && !again && !m.mayBeCut() {
		return fmt.Errorf("close: %w, and nobody cut the tunnel", err)
	}
	return nil
}

// take reads at most n bytes once and checks them. more is false at the direction's end.
func (d *direction) take(m *tunnelModel, n int) (more bool, err error) {
	p := make([]byte, n)
	k, err := d.to.Read(p)
	for i := range k {
		if want := pattern(d.seed, d.read+i); p[i] != want {
			return false, fmt.Errorf("byte %d is %#x, want %#x: lost, doubled or out of order", d.read+i, p[i], want)
		}
	}
	d.read += k
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.read > d.written+d.trying:
		return false, fmt.Errorf("%d bytes were read, %d written", d.read, d.written)
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil
	case errors.Is(err, io.EOF):
		if !d.ended && !m.mayBeCut() {
			return false, errors.New("an end came that nobody wrote")
		}
		if d.read != d.written {
			return false, fmt.Errorf("a clean end after %d of %d bytes", d.read, d.written)
		}
		return false, nil
	case errors.Is(err, syscall.ECONNRESET), isClosed(err):
		if !m.mayBeCut() {
			return false, fmt.Errorf("%w, and nobody cut the tunnel", err)
		}
		return false, nil
	}
	return false, err
}

// runModel does what script says on both ends of a few tunnels, lets all of it come to its end, and checks it.
func runModel(t *testing.T, script []byte) {
	a, b := hbonetest.Pipe()
	streams := make(chan *h2.Stream, 16)
	cfg := h2.Config{PingInterval: -1}
	if len(script) > 0 && script[0]%2 == 0 {
		cfg.StreamWindow, cfg.MaxStreamWindow, cfg.ConnWindow = 1000, 1000, 65535
	}
	client := h2.NewClient(a, cfg)
	server := h2.NewServer(b, cfg, func(s *h2.Stream) {
		if s.Respond() == nil {
			streams <- s
		}
	})
	defer client.Close()
	defer server.Close()
	var models []*tunnelModel
	queues := map[*direction]chan func() error{}
	var wg sync.WaitGroup
	for i := range 3 {
		c, err := client.Open(t.Context(), hbonetest.Connect(target))
		if err != nil {
			t.Fatal(err)
		}
		s := <-streams
		m := &tunnelModel{up: &direction{seed: uint64(i + 1), from: c, to: s}, down: &direction{seed: uint64(i + 100), from: s, to: c}}
		models = append(models, m)
		for _, d := range []*direction{m.up, m.down} {
			writes := make(chan func() error, len(script)+1)
			queues[d] = writes
			wg.Go(func() { // writes in the order of the script
				for f := range writes {
					if err := f(); err != nil {
						t.Errorf("tunnel %d: %v", i, err)
					}
				}
			})
			wg.Go(func() { // reads of changing size, until the end
				rnd := rand.New(rand.NewPCG(d.seed, uint64(len(script))))
				_ = d.to.SetReadDeadline(time.Now().Add(patience))
				start := time.Now()
				for {
					more, err := d.take(m, 1+rnd.IntN(5000))
					if err != nil {
						t.Errorf("tunnel %d: %v", i, err)
					}
					if !more || err != nil {
						return
					}
					if time.Since(start) > patience {
						t.Errorf("tunnel %d: no end comes", i)
						return
					}
				}
			})
		}
	}
	for i := 0; i+2 < len(script); i += 3 {
		m := models[int(script[i])%len(models)]
		d := m.up
		if script[i]&0x80 != 0 {
			d = m.down
		}
		n := int(script[i+2])
		switch script[i+1] % 16 {
		case 0, 1, 2, 3:
			queues[d] <- func() error { return d.write(m, n) }
		case 4, 5, 6:
			queues[d] <- func() error { return d.write(m, n*331) }
		case 7, 8:
			queues[d] <- func() error { return d.closeWrite(m) }
		case 9:
			m.kill()
			d.from.Reset(8)
		case 10:
			queues[d] <- func() error { m.kill(); d.from.Reset(0); return nil }
		case 11:
			m.kill()
			d.from.Close()
		case 12:
			queues[d] <- func() error { m.kill(); return d.from.Close() }
		case 13:
			_ = d.from.SetWriteDeadline(time.Now().Add(-1))
		case 14:
			_ = d.from.SetWriteDeadline(time.Time{})
		case 15:
			_ = d.from.SetWriteDeadline(time.Now().Add(time.Duration(n) * 10 * time.Microsecond))
		}
	}
	for d, q := range queues {
		_ = d.from.SetWriteDeadline(time.Time{})
		for _, m := range models {
			if m.up == d || m.down == d {
				q <- func() error { return d.closeWrite(m) }
			}
		}
		close(q)
	}
	wg.Wait()
	for i, m := range models {
		for _, d := range []*direction{m.up, m.down} {
			if !m.mayBeCut() && d.read != d.written {
				t.Errorf("tunnel %d: %d bytes were read, %d written", i, d.read, d.written)
			}
		}
	}
	for _, m := range models {
		for _, s := range []*h2.Stream{m.up.from, m.down.from} {
			select {
			case <-s.Done():
			case <-time.After(patience):
				t.Fatalf("a stream has no end: %d and %d are left", client.Streams(), server.Streams())
			}
		}
	}
	if c, s := client.Streams(), server.Streams(); c+s > 0 {
		t.Errorf("%d and %d streams are left", c, s)
	}
}

func isClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{0, 4, 200, 1, 4, 200, 130, 5, 255, 2, 7, 0, 129, 8, 0})
	f.Add([]byte{1, 6, 255, 129, 6, 255, 1, 9, 0})
	f.Add([]byte{0, 4, 100, 0, 13, 0, 0, 4, 100, 0, 14, 0, 0, 4, 100, 128, 12, 0})
	f.Add([]byte{2, 4, 255, 2, 12, 0, 130, 4, 255, 131, 10, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		runModel(t, script[:min(len(script), 300)])
	})
}

// TestModel runs the model with scripts of chance, which FuzzModel would take long to come to.
func TestModel(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 25
	}
	for seed := range n {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		script := make([]byte, 3*(1+rnd.IntN(60)))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		if seed%2 == 1 { // without resets and deadlines, so that all must arrive
			for i := 1; i < len(script); i += 3 {
				script[i] = script[i] % 7
			}
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, script) })
		if t.Failed() {
			t.Fatalf("the script is %v", script)
		}
	}
}
