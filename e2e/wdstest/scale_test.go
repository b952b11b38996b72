package wdstest

import (
	"context"
	"flag"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	k8s "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// entries is how many WorkloadEntries there are at scale; make scale has 10,000.
var entries = flag.Int("entries", 500, "number of WorkloadEntries, ten to a ServiceEntry")

const (
	perService = 10
	// perWorkload is what a workload may take in wildcard, its share of its Service included.
	perWorkload = 1024
	// loadWithin is how long the first load may take, of as many as there are.
	loadWithin = 3 * time.Second
)

// TestManyWorkloads has a client in wildcard and one on demand beside a real istiod with many WorkloadEntries: what they take, how long the first load takes,
// a change, all names one after the other, and a reconnection. It is not parallel: it looks at the heap.
func TestManyWorkloads(t *testing.T) {
	m := shared.Get(t)
	services := *entries / perService
	begin := time.Now()
	populate(t, m, services)
	t.Logf("%d ServiceEntries and %d WorkloadEntries made in %v", services, services*perService, time.Since(begin).Round(time.Millisecond))

	count := &counted{lines: lines{m: m}}
	begin = time.Now()
	all := newClient(t, m, "scale", func(c *wds.Config) { c.Wildcard, c.DialContext = true, count.dial })
	all.until("all workloads", 120*time.Second, func() bool { return all.Stats().Workloads >= services*perService && all.Stats().Services >= services })
	st := all.Stats()
	t.Logf("until istiod had told of all in wildcard: %v (it had just been told itself)", time.Since(begin).Round(time.Millisecond))
	all.Close()

	count = &counted{lines: lines{m: m}}
	before := heap()
	begin = time.Now()
	all = newClient(t, m, "scale", func(c *wds.Config) { c.Wildcard, c.DialContext = true, count.dial })
	all.until("the first load", 60*time.Second, func() bool { return all.Stats().Workloads >= st.Workloads })
	took := time.Since(begin)
	each := (heap() - before) / int64(st.Workloads)
	loaded := count.bytes.Load()
	t.Logf("wildcard: %d workloads and %d Services in %v, %d bytes over the line, %d B a workload", st.Workloads, st.Services, took.Round(time.Millisecond), loaded, each)
	if each > perWorkload && *entries >= 2000 { // what does not grow with them counts for less
		t.Errorf("a workload takes %d bytes, want at most %d", each, perWorkload)
	}
	seen := fmt.Sprintf("the first load of %d workloads takes %v at most: it took %v", st.Workloads, loadWithin, took.Round(time.Millisecond))
	if took > loadWithin && world.Judge(t, seen) {
		t.Error(seen)
	}
	begin = time.Now()
	move(t, m, 0, "10.21.0.1")
	all.until("a change", 30*time.Second, func() bool {
		r, err := all.Resolve(t.Context(), "tcp", "10.21.0.1:8080")
		return err == nil && len(r.Hops) == 1
	})
	t.Logf("wildcard: a change of one WorkloadEntry leads dials elsewhere after %v, the API server's and istiod's time included", time.Since(begin).Round(time.Millisecond))

	count.bytes.Store(0)
	count.setCut(true)
	all.until("the line to be cut", 30*time.Second, func() bool { return !all.Stats().Online })
	count.setCut(false)
	begin = time.Now()
	all.until("a reconnection", 60*time.Second, func() bool { return all.Stats().Online })
	t.Logf("wildcard: online again after %v, %d bytes over the line", time.Since(begin).Round(time.Millisecond), count.bytes.Load())
	if again := count.bytes.Load(); again > loaded/4 {
		t.Errorf("a reconnection brought %d bytes, the first load %d", again, loaded)
	}
	all.Close()

	names := make([]string, services)
	for i := range names {
		names[i] = host(i) + ":80"
	}
	before = heap()
	begin = time.Now()
	some := newClient(t, m, "scale", func(c *wds.Config) { c.RefreshEvery = time.Hour })
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(100)
	used := max(1, services/10)
	for _, name := range names[:used] {
		g.Go(func() error { return found(ctx, some, name) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took = time.Since(begin)
	if st := some.Stats(); st.Services != used || st.Workloads != used*perService {
		t.Errorf("of %d names: %+v", used, st)
	}
	t.Logf("on demand: %d of %d names in %v, %d B a name with its %d workloads", used, services, took.Round(time.Millisecond), (heap()-before)/int64(used), perService)
	begin = time.Now()
	g, ctx = errgroup.WithContext(t.Context())
	g.SetLimit(100)
	for _, name := range names[used:] {
		g.Go(func() error { return found(ctx, some, name) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took = time.Since(begin)
	t.Logf("on demand: the other %d in %v, %d B a name", services-used, took.Round(time.Millisecond), (heap()-before)/int64(services))

	begin = time.Now()
	const rounds = 20
	for range rounds {
		for _, name := range names {
			if _, err := some.Resolve(t.Context(), "tcp", name); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("on demand: a look-up of what is known takes %v", time.Since(begin)/time.Duration(rounds*services))
	runtime.KeepAlive(some)
}

func found(ctx context.Context, c client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := c.Resolve(ctx, "tcp", name)
	return err
}

func host(i int) string { return fmt.Sprintf("s-%d.scale.example", i) }
func vip(i int) string  { return fmt.Sprintf("10.97.%d.%d", i/250, i%250+1) }
func pod(n int) string  { return fmt.Sprintf("10.20.%d.%d", n/250, n%250+1) }

// populate makes Services of ten workloads each.
func populate(t *testing.T, m *mesh.Mesh, services int) {
	t.Helper()
	if err := m.Apply(t.Context(), namespace("scale")); err != nil {
		t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	create := func(text string) error {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			return err
		}
		return m.Client().Create(ctx, o)
	}
	for i := range services {
		g.Go(func() error {
			return create(fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s-%[1]d, namespace: scale}
spec:
  hosts: [%[2]s]
  addresses: [%[3]s]
  ports: [{number: 80, name: tcp, protocol: TCP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: s-%[1]d}}
`, i, host(i), vip(i)))
		})
		for n := i * perService; n < (i+1)*perService; n++ {
			g.Go(func() error { return create(workloadEntry(n, pod(n))) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func workloadEntry(n int, address string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w-%[1]d, namespace: scale, labels: {app: s-%[2]d}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: %[3]s, serviceAccount: s-%[2]d, labels: {app: s-%[2]d}}
`, n, n/perService, address)
}

// move gives workload n another address.
func move(t *testing.T, m *mesh.Mesh, n int, address string) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(workloadEntry(n, address)), &o.Object); err != nil {
		t.Fatal(err)
	}
	if err := m.Client().Patch(t.Context(), o, k8s.RawPatch(types.MergePatchType, []byte(`{"spec":{"address":"`+address+`"}}`))); err != nil {
		t.Fatal(err)
	}
}

// until waits for ok.
func (c client) until(what string, within time.Duration, ok func() bool) {
	c.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("never: %s: %+v", what, c.Stats())
		}
	}
}

// counted dials for a client, counts what it reads, and can cut what it dialled.
type counted struct {
	lines
	bytes atomic.Int64
}

func (c *counted) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.lines.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return counting{conn, &c.bytes}, nil
}

type counting struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
