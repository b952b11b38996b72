//go:build unix

package wds

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// manyServices of each workloads are the mesh of the promised figures: 10,000 and 100,000.
const manyServices = 10_000

// reportCPU adds the processor time of both ends to what b reports: other programs on the machine change it less than the clock's. It counts
// from now until the result is called, with the number of operations.
func reportCPU(b *testing.B) (end func(n int)) {
	before := processorTime(b)
	return func(n int) { b.ReportMetric(float64(processorTime(b)-before)/float64(n), "cpu-ns/op") }
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The first load of 100,000 workloads: at most 3 s and 1,024 bytes each are promised.
func BenchmarkMeshLoad(b *testing.B) {
	istiod := wdstest.New(b)
	istiod.Fill(manyServices, each)
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		end := reportCPU(b) // of this load
		c, err := New(scaleConfig(istiod, true))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Ready(b.Context()); err != nil {
			b.Fatal(err)
		}
		end(1)
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/(manyServices*each), "B/workload")
		c.Close()
		b.StartTimer()
	}
	runtime.KeepAlive(istiod)
}

// A change of one workload of 100,000: at most 50 µs are promised.
func BenchmarkMeshDelta(b *testing.B) {
	c, _, _ := loaded(b, manyServices)
	c.Close()
	changes := make([]*discovery.DeltaDiscoveryResponse, 4096)
	for i := range changes {
		n := i % (len(changes) / 2)
		changes[i] = delta(4*n, n%each, i) // each workload twice, so that every change is one
	}
	heap()
	b.ReportAllocs()
	end := reportCPU(b)
	for i := 0; b.Loop(); i++ {
		c.take(changes[i%len(changes)])
	}
	end(b.N)
}

// A look-up among 10,000 names: at most 300 ns and no allocation are promised. Where endpoints have tunnels two are compared, else one will do.
func BenchmarkMeshLookup(b *testing.B) {
	c, _, _ := loaded(b, manyServices)
	names := make([]string, 10_000)
	lookup := func(n int, open bool) {
		for i := range n {
			r, err := c.Resolve(b.Context(), "tcp", names[i])
			if err != nil {
				b.Fatal(err)
			}
			if open {
				r.Endpoint.Opened()
			}
		}
	}
	for i := range names {
		names[i] = addressOf(i)
	}
	for range 50 { // so that most endpoints were chosen before
		lookup(len(names), false)
	}
	measure := func(b *testing.B, hot int) {
		ctx := b.Context()
		b.ReportAllocs()
		end := reportCPU(b)
		for i := 0; b.Loop(); i++ {
			if _, err := c.Resolve(ctx, "tcp", names[i%hot]); err != nil {
				b.Fatal(err)
			}
		}
		end(b.N)
	}
	heap() // what the load left behind is not counted here
	for _, hot := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("names=%d", hot), func(b *testing.B) { measure(b, hot) })
	}
	for range 40 {
		lookup(len(names), true)
	}
	for _, hot := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("tunnels/names=%d", hot), func(b *testing.B) { measure(b, hot) })
	}
}

// What one load from memory takes that waits for the one before: a look-up cannot be faster than those that it needs one after the other.
func BenchmarkMeshMemory(b *testing.B) {
	for _, size := range []int{32 << 10, 512 << 10, 8 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("KiB=%d", size>>10), func(b *testing.B) {
			const line = 64 / 8
			at := make([]uint64, size/8)
			order := rand.Perm(len(at) / line)
			for i, n := range order { // one round through all lines, in no order
				at[n*line] = uint64(order[(i+1)%len(order)] * line)
			}
			next := uint64(0)
			for b.Loop() {
				next = at[next]
			}
			if next%line != 0 {
				b.Fatal(next)
			}
		})
	}
}

// 10,000 names asked for one by one of a mesh of 100,000 workloads.
func BenchmarkMeshOnDemand(b *testing.B) {
	istiod := wdstest.New(b)
	istiod.Fill(manyServices, each)
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		c, err := New(scaleConfig(istiod, false))
		if err != nil {
			b.Fatal(err)
		}
		var wg sync.WaitGroup
		for worker := range 100 {
			wg.Go(func() {
				for n := worker; n < manyServices; n += 100 {
					if _, err := c.Resolve(b.Context(), "tcp", addressOf(n)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/manyServices, "B/name")
		c.Close()
		b.StartTimer()
	}
	runtime.KeepAlive(istiod)
}
