package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
)

// idle measures what a tunnel costs on which nothing happens.
func idle(short bool) scenario {
	tunnels := 100000
	if short {
		tunnels = 5000
	}
	return scenario{
		name: "idle", about: fmt.Sprintf("%d tunnels on which nothing happens, as many connections as the server's limit asks for", tunnels),
		special: func(ctx context.Context, b *bench) []report.Row { return b.idle(ctx, tunnels) },
	}
}

// weight is what a process takes.
type weight struct {
	memory
	rss int64
}

func weigh(c *proc.Child) (w weight, err error) {
	if err := c.Call("memory", nil, &w.memory); err != nil {
		return w, err
	}
	w.rss, err = proc.RSS(c.PID())
	return w, err
}

// Of a forwarded idle tunnel: how many are weighed, since each takes a descriptor or two, and what one takes in ztunnel.
const (
	idleForwarded = 4000
	ztunnelIdle   = 5700
)

func (b *bench) idle(ctx context.Context, tunnels int) []report.Row {
	heap, none := report.AtMost(300, 300), report.AtMost(0.05, 0) // a connection of 200 tunnels may have some
	var rows []report.Row
	sides, err := b.weighIdle(ctx, arrangement{client: carrier.Ours, server: carrier.Ours, keep: true}, tunnels)
	for _, side := range []string{"client", "server"} {
		w := sides[side]
		rows = append(rows,
			idleRow("heap an idle tunnel, "+side, report.Bytes, w.Heap, tunnels, heap, err),
			idleRow("resident an idle tunnel, "+side, report.Bytes, w.rss, tunnels, report.Limit{}, err),
			idleRow("goroutines an idle tunnel, "+side, report.Count, int64(w.Goroutines), tunnels, none, err))
	}
	one := arrangement{client: carrier.Ours, server: carrier.Ours, keep: true, streams: uint32(tunnels)}
	sides, err = b.weighIdle(ctx, one, tunnels)
	for _, side := range []string{"client", "server"} {
		rows = append(rows, idleRow("heap, all on one connection, "+side, report.Bytes, sides[side].Heap, tunnels, report.Limit{}, err))
	}
	n := min(tunnels, idleForwarded)
	sides, err = b.weighIdle(ctx, forwards(carrier.Ours, shared), n)
	return append(rows, idleRow("resident an idle forwarded tunnel", report.Bytes, sides["server"].rss, n, report.AtMost(0.45*ztunnelIdle, 0), err))
}

func idleRow(name string, unit report.Unit, more int64, tunnels int, limit report.Limit, err error) report.Row {
	if err != nil {
		return report.Lacking(name, limit, err.Error())
	}
	return report.Absolute(name, unit, []float64{float64(more) / float64(tunnels)}, limit)
}

// weighIdle says how much more client and server weigh with tunnels than without, after a first one has come and gone.
func (b *bench) weighIdle(ctx context.Context, on arrangement, tunnels int) (_ map[string]weight, err error) {
	defer func() {
		if err != nil {
			b.failures++
		}
	}()
	s, err := b.start(ctx, on)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.client.Call("start", load.Spec{Kind: load.Idle, Tunnels: 1}, nil); err != nil {
		return nil, err
	}
	if err := s.client.Call("stop", nil, nil); err != nil {
		return nil, err
	}
	sides := map[string]func() (weight, error){"client": func() (weight, error) { return weigh(s.client) }}
	if s.other != nil {
		sides["server"] = func() (w weight, err error) { w.rss, err = proc.RSS(s.other.PID()); return w, err }
	} else {
		sides["server"] = func() (weight, error) { return weigh(s.server) }
	}
	before := map[string]weight{}
	for side, weigh := range sides {
		if before[side], err = weigh(); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if err := s.client.Call("start", load.Spec{Kind: load.Idle, Tunnels: tunnels}, nil); err != nil {
		return nil, err
	}
	fmt.Fprintf(b.progress, "  %d tunnels opened in %v\n", tunnels, time.Since(began).Round(time.Millisecond))
	more := map[string]weight{}
	for side, weigh := range sides {
		w, err := weigh()
		if err != nil {
			return nil, err
		}
		w.Heap -= before[side].Heap
		w.Goroutines -= before[side].Goroutines
		w.rss -= before[side].rss
		more[side] = w
	}
	if b.heap(on) {
		for side, c := range map[string]*proc.Child{"client": s.client, "server": s.server} {
			if err := c.Call("heap", filepath.Join(b.profiles, fmt.Sprintf("idle-%d-%s.heap.pprof", on.streams, side)), nil); err != nil {
				return nil, err
			}
		}
	}
	// The kernel completes connections that the far end has not accepted yet.
	var held load.Sample
	for end := time.Now().Add(5 * time.Second); held.Active < int64(tunnels) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := s.far().Call("sample", nil, &held); err != nil {
			return nil, err
		}
	}
	if held.Active < int64(tunnels) {
		return nil, fmt.Errorf("the far end holds %d tunnels of %d: the others did not stay open", held.Active, tunnels)
	}
	return more, nil
}
