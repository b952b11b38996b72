package h2

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// secure is a certificate made for this run.
var secure = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}
})

// securePair is both ends of a TLS connection over loopback. With gather, Gathers are beneath.
func securePair(tb testing.TB, gather bool) (net.Conn, net.Conn) {
	tb.Helper()
	a, b := tcpPair(tb)
	if gather {
		a, b = NewGather(a), NewGather(b)
	}
	client, server := tls.Client(a, secure()), tls.Server(b, secure())
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		tb.Fatal(err)
	}
	if err := <-failed; err != nil {
		tb.Fatal(err)
	}
	return client, server
}

// gathered is both ends of a connection as it is in production.
func gathered(tb testing.TB, ccfg, scfg Config, accept func(*Stream)) (*Conn, *Conn) {
	tb.Helper()
	a, b := securePair(tb, true)
	scfg.MaxStreams = 1 << 20
	server := NewServer(b, scfg, accept)
	client := NewClient(a, ccfg)
	tb.Cleanup(func() { client.Close(); server.Close() })
	<-client.Ready()
	return client, server
}

// cpuTime is what this process has used.
func cpuTime(tb testing.TB) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// report adds CPU seconds per GB.
func report(b *testing.B, start time.Duration, bytes int64) {
	b.SetBytes(bytes / int64(b.N))
	b.ReportMetric((cpuTime(b)-start).Seconds()/(float64(bytes)/1e9), "cpu-s/GB")
	b.ReportMetric(float64(bytes)*8/1e9/b.Elapsed().Seconds(), "Gbit/s")
}

// pump writes pieces as long as b loops, ends with stop, and waits for the other side.
func pump(b *testing.B, w io.Writer, piece int, stop func() error, end <-chan int64) {
	buf := make([]byte, piece)
	start := cpuTime(b)
	for b.Loop() {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	report(b, start, <-end)
}

func drain(r io.Reader, end chan<- int64) {
	buf := make([]byte, 64<<10)
	total := int64(0)
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if err != nil {
			end <- total
			return
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	const piece = 64 << 10
	b.Run("tls", func(b *testing.B) {
		c, s := securePair(b, false)
		end := make(chan int64, 1)
		go drain(s, end)
		pump(b, c, piece, c.(*tls.Conn).CloseWrite, end)
		c.Close()
		s.Close()
	})
	for _, dir := range []string{"up", "down"} {
		b.Run("h2 "+dir, func(b *testing.B) {
			accepted := make(chan *Stream, 1)
			client, _ := gathered(b, Config{}, Config{}, func(s *Stream) { _ = s.Respond(); accepted <- s })
			c, s := tunnel(b, client, accepted)
			if dir == "down" {
				c, s = s, c
			}
			end := make(chan int64, 1)
			go drain(s, end)
			pump(b, c, piece, c.CloseWrite, end)
		})
	}
}

// BenchmarkSmallFrames is ztunnel's pattern beside 64 KiB frames: what the receiving end costs must not depend on it. The sender, a plain
// TLS connection, costs the same in both.
func BenchmarkSmallFrames(b *testing.B) {
	for _, size := range []int{1024, 16320, 65527} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			accepted := make(chan *Stream, 1)
			a, nc := securePair(b, true)
			server := NewServer(nc, Config{StreamWindow: 1 << 30, MaxStreamWindow: 1}, func(s *Stream) { _ = s.Respond(); accepted <- s })
			r := &rawClient{nc: a}
			defer server.Close()
			defer a.Close()
			r.hello(b)
			r.open(1)
			go func() { _, _ = io.Copy(io.Discard, a) }()
			end := make(chan int64, 1)
			go drain(<-accepted, end)
			frames := (64 << 10) / size
			head := dataHeader(1, size, false)
			frame := append(head[:], make([]byte, size)...)
			batch := []byte{}
			for range max(1, frames) {
				batch = append(batch, frame...)
			}
			g := gatherBeneath(a)
			g.attach(func() {}, func() {})
			start := cpuTime(b)
			for b.Loop() {
				g.hold(len(batch) + 64*64)
				for rest := batch; len(rest) > 0; {
					n := min(len(rest), len(frame))
					if _, err := a.Write(rest[:n]); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
				g.release()
				if err := g.flush(); err != nil {
					b.Fatal(err)
				}
			}
			g.hold(64)
			last := dataHeader(1, 0, true)
			if _, err := a.Write(last[:]); err != nil {
				b.Fatal(err)
			}
			g.release()
			if err := g.flush(); err != nil {
				b.Fatal(err)
			}
			report(b, start, <-end)
		})
	}
}

func BenchmarkEcho(b *testing.B) {
	echo := func(s io.ReadWriter) {
		buf := make([]byte, 1024)
		for {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			if _, err := s.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	run := func(b *testing.B, ends []io.ReadWriter) {
		b.ReportAllocs()
		start := cpuTime(b)
		var wg sync.WaitGroup
		turns := make(chan int)
		for _, c := range ends {
			wg.Go(func() {
				buf := make([]byte, 100)
				for n := range turns {
					for range n {
						if _, err := c.Write(buf); err != nil {
							b.Error(err)
							return
						}
						if _, err := io.ReadFull(c, buf); err != nil {
							b.Error(err)
							return
						}
					}
				}
			})
		}
		const each = 8
		n := 0
		for b.Loop() {
			if n++; n%each == 0 {
				turns <- each
			}
		}
		turns <- n % each
		close(turns)
		wg.Wait()
		b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/op")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	}
	for _, n := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("tls %d", n), func(b *testing.B) {
			var ends []io.ReadWriter
			for range n {
				c, s := securePair(b, false)
				go echo(s)
				ends = append(ends, c)
				b.Cleanup(func() { c.Close(); s.Close() })
			}
			run(b, ends)
		})
		b.Run(fmt.Sprintf("h2 %d", n), func(b *testing.B) {
			client, _ := gathered(b, Config{}, Config{}, func(s *Stream) { _ = s.Respond(); echo(s) })
			var ends []io.ReadWriter
			for range n {
				s, err := client.Open(b.Context(), connect("10.0.0.1:80"))
				if err != nil {
					b.Fatal(err)
				}
				ends = append(ends, s)
			}
			run(b, ends)
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			client, _ := gathered(b, Config{}, Config{}, func(s *Stream) {
				_ = s.Respond()
				buf := make([]byte, 1)
				if _, err := s.Read(buf); err == nil {
					_, _ = s.Write(buf)
				}
				_, _ = s.Read(buf)
				s.Close()
			})
			fields := connect("10.0.0.1:80")
			start := cpuTime(b)
			var wg sync.WaitGroup
			turns := make(chan struct{})
			for range n {
				wg.Go(func() {
					one := make([]byte, 1)
					for range turns {
						s, err := client.Open(b.Context(), fields)
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := s.Write(one); err != nil {
							b.Error(err)
						}
						if _, err := io.ReadFull(s, one); err != nil {
							b.Error(err)
						}
						_ = s.CloseWrite()
						_, _ = s.Read(one)
						s.Close()
					}
				})
			}
			for b.Loop() {
				turns <- struct{}{}
			}
			close(turns)
			wg.Wait()
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "opens/s")
		})
	}
}

// BenchmarkBeside is a small message there and back while bulk runs on the same connection.
func BenchmarkBeside(b *testing.B) {
	for _, dir := range []string{"up", "down"} {
		b.Run(dir, func(b *testing.B) {
			accepted := make(chan *Stream, 2)
			client, server := gathered(b, Config{}, Config{}, func(s *Stream) { _ = s.Respond(); accepted <- s })
			small, far := tunnel(b, client, accepted)
			go func() { _, _ = io.Copy(struct{ io.Writer }{far}, struct{ io.Reader }{far}) }()
			from, to := tunnel(b, client, accepted)
			if dir == "down" {
				from, to = to, from
			}
			end := make(chan int64, 1)
			go drain(to, end)
			go func() {
				buf := make([]byte, 64<<10)
				for {
					if _, err := from.Write(buf); err != nil {
						return
					}
				}
			}()
			var took []time.Duration
			buf := make([]byte, 100)
			for b.Loop() {
				start := time.Now()
				if _, err := small.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(small, buf); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			elapsed := b.Elapsed()
			sent := client.Stats().BytesOut + server.Stats().BytesOut
			client.Close()
			<-end
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(sent)*8/1e9/elapsed.Seconds(), "bulk-Gbit/s")
		})
	}
}

// BenchmarkIdle tells what a tunnel that does nothing holds at both ends.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		client, _ := gathered(b, Config{}, Config{}, func(s *Stream) { _ = s.Respond() })
		const n = 20_000
		before := heap()
		list := make([]*Stream, 0, n)
		for range n {
			s, err := client.Open(b.Context(), connect("10.0.0.1:80"))
			if err != nil {
				b.Fatal(err)
			}
			list = append(list, s)
		}
		b.ReportMetric(float64(heap()-before)/n/2-8/2, "B/tunnel-side")
		runtime.KeepAlive(list)
		client.Close()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
