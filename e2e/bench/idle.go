package main

import (
	"context"
	"errors"
	"fmt"
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

func (b *bench) idle(ctx context.Context, tunnels int) []report.Row {
	heap, none := report.AtMost(300, 300), report.AtMost(0.001, 0.001)
	var rows []report.Row
	sides, took, err := b.weighIdle(ctx, tunnels)
	for _, side := range []string{"client", "server"} {
		names := []string{"heap an idle tunnel, " + side, "resident an idle tunnel, " + side, "goroutines an idle tunnel, " + side}
		if err != nil {
			rows = append(rows, report.Lacking(names[0], heap, err.Error()), report.Lacking(names[1], report.Limit{}, err.Error()),
				report.Lacking(names[2], none, err.Error()))
			continue
		}
		each := func(n int64) []float64 { return []float64{float64(n) / float64(tunnels)} }
		before, after := sides[side][0], sides[side][1]
		rows = append(rows,
			report.Absolute(names[0], report.Bytes, each(after.Heap-before.Heap), heap),
			report.Absolute(names[1], report.Bytes, each(after.rss-before.rss), report.Limit{}),
			report.Absolute(names[2], report.Count, each(int64(after.Goroutines-before.Goroutines)), none))
	}
	fmt.Fprintf(b.progress, "  opened in %v\n", took)
	return rows
}

// weighIdle weighs both sides with their first connection and without tunnels, and with the tunnels.
func (b *bench) weighIdle(ctx context.Context, tunnels int) (map[string][2]weight, time.Duration, error) {
	s, err := b.start(ctx, arrangement{client: carrier.Ours, server: carrier.Ours, keep: true})
	if err != nil {
		return nil, 0, err
	}
	defer s.close()
	var before, after [2]weight
	children := []*proc.Child{s.client, s.server}
	if err := s.client.Call("start", load.Spec{Kind: load.Idle, Tunnels: 1}, nil); err != nil {
		return nil, 0, err
	}
	if err := s.client.Call("stop", nil, nil); err != nil {
		return nil, 0, err
	}
	for i, c := range children {
		if before[i], err = weigh(c); err != nil {
			return nil, 0, err
		}
	}
	began := time.Now()
	if err := s.client.Call("start", load.Spec{Kind: load.Idle, Tunnels: tunnels}, nil); err != nil {
		return nil, 0, err
	}
	took := time.Since(began)
	for i, c := range children {
		if after[i], err = weigh(c); err != nil {
			return nil, 0, err
		}
	}
	var held load.Sample
	if err := s.server.Call("sample", nil, &held); err != nil {
		return nil, 0, err
	}
	if held.Active < int64(tunnels) {
		return nil, 0, fmt.Errorf("the server holds %d tunnels: %w", held.Active, errors.New("they did not stay open"))
	}
	return map[string][2]weight{"client": {before[0], after[0]}, "server": {before[1], after[1]}}, took, nil
}
