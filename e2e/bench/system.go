package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
)

// layout says which cores the parts run on.
type layout int

const (
	shared layout = iota // all on both cores, as the scheduler likes
	apart                // client and server on a core each
	alone                // the server on one core, all others on the other
)

// arrangement is the processes that a figure is taken of.
type arrangement struct {
	client, server carrier.Kind
	forward        bool // to an application in a process of its own
	layout         layout
	oneWay         time.Duration // of a delay line between client and server; zero: none
	keep           bool          // the server leaves tunnels alone
	streams        uint32        // tunnels a connection of our server; zero: its default
	other          stranger      // instead of server
}

// stranger is a server that is not a part of this program.
type stranger string

const (
	anEnvoy  stranger = "envoy"
	aZtunnel stranger = "ztunnel"
)

// other is a stranger that runs.
type other interface {
	Addr() string
	PID() int
	Close()
}

// system is an arrangement that runs.
type system struct {
	client, server, app, line *proc.Child // nil where there is none
	other                     other       // nil where there is none
	cpus                      []int       // that they run on
}

func (b *bench) start(ctx context.Context, a arrangement) (_ *system, err error) {
	s := &system{cpus: b.cpus}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	both := proc.Placement{CPUs: b.cpus}
	near, far := both, both
	if a.layout != shared {
		near, far = proc.Placement{CPUs: b.cpus[:1]}, proc.Placement{CPUs: b.cpus[1:]}
	}
	target := "192.0.2.1:80" // where tunnels go that end at the server
	if a.forward {
		if s.app, err = proc.Start(ctx, near, partConfig{Role: roleApp, Carrier: carrier.Config{ID: b.serverID}}); err != nil {
			return nil, fmt.Errorf("start the application: %w", err)
		}
		target = s.app.Addr
	}
	var addr string
	if a.other != "" {
		if s.other, err = b.startOther(ctx, a.other, far, target); err != nil {
			return nil, err
		}
		addr = s.other.Addr()
	} else {
		cfg := carrier.Config{Kind: a.server, ID: b.serverID, Forward: a.forward, Target: target, Keep: a.keep, Streams: a.streams}
		if s.server, err = proc.Start(ctx, far, partConfig{Role: roleServer, Carrier: cfg, Heap: b.heap(a)}); err != nil {
			return nil, fmt.Errorf("start the server of %s: %w", a.server, err)
		}
		addr = s.server.Addr
	}
	if a.oneWay > 0 {
		if s.line, err = proc.Start(ctx, both, partConfig{Role: roleLine, Addr: addr, OneWay: a.oneWay}); err != nil {
			return nil, fmt.Errorf("start the delay line: %w", err)
		}
		addr = s.line.Addr
	}
	cfg := carrier.Config{Kind: a.client, ID: b.clientID, Target: target}
	if s.client, err = proc.Start(ctx, near, partConfig{Role: roleClient, Carrier: cfg, Addr: addr, Heap: b.heap(a)}); err != nil {
		return nil, fmt.Errorf("start the client of %s: %w", a.client, err)
	}
	return s, nil
}

func (b *bench) startOther(ctx context.Context, who stranger, where proc.Placement, app string) (other, error) {
	if who == aZtunnel {
		return b.startZtunnel(ctx, where)
	}
	return b.startEnvoy(ctx, where, app)
}

// heap reports whether heap profiles are wanted, which cost the parts something: of tunnels that are only kept.
func (b *bench) heap(a arrangement) bool { return b.profiles != "" && a.keep }

func (s *system) close() {
	var wg sync.WaitGroup
	for _, c := range []*proc.Child{s.client, s.line, s.server, s.app} {
		if c != nil {
			wg.Go(func() { c.Close() })
		}
	}
	wg.Wait()
	if s.other != nil {
		s.other.Close()
	}
}

// moment is all counters at one time.
type moment struct {
	client, far                  load.Sample
	clientCPU, serverCPU, appCPU time.Duration
	lineCPU, busy                time.Duration // busy: of all cores in use, whoever used them
}

// far is the process in which tunnels end.
func (s *system) far() *proc.Child {
	if s.app != nil {
		return s.app
	}
	return s.server
}

func (s *system) serverPID() int {
	if s.other != nil {
		return s.other.PID()
	}
	return s.server.PID()
}

func (s *system) look() (m moment, err error) {
	if m.clientCPU, err = proc.CPUTime(s.client.PID()); err != nil {
		return m, err
	}
	if m.serverCPU, err = proc.CPUTime(s.serverPID()); err != nil {
		return m, err
	}
	if s.app != nil {
		if m.appCPU, err = proc.CPUTime(s.app.PID()); err != nil {
			return m, err
		}
	}
	if s.line != nil {
		if m.lineCPU, err = proc.CPUTime(s.line.PID()); err != nil {
			return m, err
		}
	}
	if m.busy, err = proc.Busy(s.cpus); err != nil {
		return m, err
	}
	return m, errors.Join(s.far().Call("sample", nil, &m.far), s.client.Call("sample", nil, &m.client))
}

// figures is what one run gave. What the load does not give is NaN or zero.
type figures struct {
	Bytes         float64 // a second, where they arrive
	Ops           float64 // a second
	P50, P99      float64 // seconds
	ServerPerByte float64 // CPU seconds
	ServerPerOp   float64
	Busier        float64 // bytes a CPU second of client or server, whichever has more to do: the rate with a core each that nobody else uses
	BothPerByte   float64 // of client and server together
	BothPerOp     float64
	Others        float64 // cores' worth of time that other programs took meanwhile
}

// lost is a run that gave nothing.
func lost() figures {
	n := math.NaN()
	return figures{n, n, n, n, n, n, n, n, n, n}
}

// run puts a load on the system, waits for warm, and measures for long.
func (s *system) run(spec load.Spec, warm, long time.Duration, profiles string) (figures, error) {
	if err := s.client.Call("start", spec, nil); err != nil {
		return lost(), err
	}
	time.Sleep(warm)
	if profiles != "" {
		if err := s.profile(profiles); err != nil {
			return lost(), err
		}
	}
	before, err := s.look()
	if err != nil {
		return lost(), err
	}
	time.Sleep(long)
	after, err := s.look()
	if profiles != "" {
		err = errors.Join(err, s.profile(""))
	}
	if err = errors.Join(err, s.client.Call("stop", nil, nil)); err != nil {
		return lost(), err
	}
	return between(before, after, spec), s.settle()
}

// profile begins CPU profiles of client and server in files that begin with path, or ends them when it is empty.
func (s *system) profile(path string) error {
	var errs []error
	for name, c := range map[string]*proc.Child{"client": s.client, "server": s.server} {
		if c == nil {
			continue
		}
		file := path
		if file != "" {
			file = filepath.Clean(path + "-" + name + ".pprof")
		}
		errs = append(errs, c.Call("profile", file, nil))
	}
	return errors.Join(errs...)
}

// settleTime is how long the far end has to see that a load is over.
const settleTime = 3 * time.Second

// settle waits until no tunnel is left at the far end, so that one run does not disturb the next.
func (s *system) settle() error {
	for end := time.Now().Add(settleTime); ; time.Sleep(5 * time.Millisecond) {
		var m load.Sample
		if err := s.far().Call("sample", nil, &m); err != nil {
			return err
		}
		if m.Active == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d tunnels are still open at the far end after %v", m.Active, settleTime)
		}
	}
}

func between(a, b moment, spec load.Spec) figures {
	kind := spec.Kind
	if kind == load.Beside {
		kind = spec.Bulk
	}
	from, to := a.far, b.far
	if kind == load.Down {
		from, to = a.client, b.client
	}
	n := float64(to.In - from.In)
	ops := float64(b.client.Ops - a.client.Ops)
	took := b.client.Took.Since(a.client.Took)
	server := (b.serverCPU - a.serverCPU).Seconds()
	client := (b.clientCPU - a.clientCPU).Seconds()
	both := server + client
	mine := both + (b.appCPU - a.appCPU + b.lineCPU - a.lineCPU).Seconds()
	span := (to.At - from.At).Seconds()
	return figures{
		Bytes:         n / span,
		Ops:           ops / (b.client.At - a.client.At).Seconds(),
		P50:           took.Quantile(0.5).Seconds(),
		P99:           took.Quantile(0.99).Seconds(),
		ServerPerByte: server / n,
		ServerPerOp:   server / ops,
		Busier:        n / max(server, client),
		BothPerByte:   both / n,
		BothPerOp:     both / ops,
		Others:        max(0, (b.busy-a.busy).Seconds()-mine) / span,
	}
}
