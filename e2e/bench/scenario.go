package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
)

// cell is a load on an arrangement; rows compare cells.
type cell struct {
	name string
	on   arrangement
	load load.Spec
}

// scenario is cells that are measured in turn, and the rows that they give.
type scenario struct {
	name, about string
	cells       []cell
	rounds      int           // zero: 7
	warm, long  time.Duration // zero: 150 and 400 ms
	rows        func(r results) []report.Row
	special     func(ctx context.Context, b *bench) []report.Row // instead of cells
}

// results are the figures of each cell by rounds, and why some have none.
type results struct {
	figures map[string][]figures
	failed  map[string]error
}

// take measures a scenario.
func (s scenario) take(ctx context.Context, b *bench) []report.Row {
	if s.special != nil {
		return s.special(ctx, b)
	}
	rounds, warm, long := s.rounds, s.warm, s.long
	if rounds == 0 {
		rounds = 7
	}
	if warm == 0 {
		warm = 150 * time.Millisecond
	}
	if long == 0 {
		long = 400 * time.Millisecond
	}
	if b.rounds > 0 {
		rounds = b.rounds
	}
	if b.short {
		rounds, warm, long = 1, warm/3, long/4
	}
	r := results{map[string][]figures{}, map[string]error{}}
	systems := map[arrangement]*system{}
	defer func() {
		for _, sys := range systems {
			sys.close()
		}
	}()
	for round := range rounds {
		for i := range s.cells {
			if round%2 == 1 {
				i = len(s.cells) - 1 - i
			}
			if ctx.Err() != nil {
				return nil
			}
			s.measure(ctx, b, r, systems, s.cells[i], warm, long, "")
		}
	}
	for _, c := range s.cells {
		if b.profiles != "" && (c.on.server == carrier.Ours && c.on.other == "") {
			name := strings.NewReplacer(" ", "-", "/", "-").Replace(s.name + "-" + c.name)
			s.measure(ctx, b, results{map[string][]figures{}, r.failed}, systems, c, warm, max(long, profileTime), filepath.Join(b.profiles, name))
		}
	}
	return s.rows(r)
}

// profileTime is enough for some hundred samples.
const profileTime = 3 * time.Second

// measure takes one figure. A cell that has failed is not tried again.
func (s scenario) measure(ctx context.Context, b *bench, r results, systems map[arrangement]*system, c cell, warm, long time.Duration, profiles string) {
	f, err := lost(), r.failed[c.name]
	if err == nil {
		sys := systems[c.on]
		if sys == nil {
			if sys, err = b.start(ctx, c.on); err == nil {
				systems[c.on] = sys
			}
		}
		if err == nil {
			f, err = b.calmest(ctx, func() (figures, error) { return sys.run(c.load, warm, long, profiles) })
		}
		if err != nil {
			r.failed[c.name] = err
			b.failures++
			fmt.Fprintf(b.progress, "  %s: %v\n", c.name, err)
			if sys != nil { // its state is unknown
				sys.close()
				delete(systems, c.on)
			}
		} else {
			fmt.Fprintln(b.progress, f.line(c.name, c.load.Kind))
		}
	}
	r.figures[c.name] = append(r.figures[c.name], f)
}

// disturbed is how many cores' worth of time others may take of a run before it is worth another try.
const disturbed = 0.15

// calmest runs again what other programs disturbed, up to three times while patience lasts, and keeps the run they disturbed least.
func (b *bench) calmest(ctx context.Context, run func() (figures, error)) (figures, error) {
	best, err := run()
	for range 2 {
		if err != nil || best.Others < disturbed || b.patience <= 0 || ctx.Err() != nil {
			break
		}
		began := time.Now()
		var f figures
		f, err = run()
		b.patience -= time.Since(began)
		if err == nil && f.Others < best.Others {
			best = f
		}
	}
	b.others = append(b.others, best.Others)
	return best, err
}

// line says what a run gave.
func (f figures) line(name string, k load.Kind) string {
	s := fmt.Sprintf("  %-16s (others %.2f)", name, f.Others)
	if k == load.Up || k == load.Down || k == load.Beside {
		s += fmt.Sprintf(" %6.2f Gbit/s (%5.2f a busy core), CPU server %.3f s/GB, both %.3f;",
			f.Bytes*8e-9, f.Busier*8e-9, f.ServerPerByte*1e9, f.BothPerByte*1e9)
	}
	if k == load.Echo || k == load.Open || k == load.Beside {
		s += fmt.Sprintf(" %7.2f k/s, p50 %.3f ms, p99 %.3f ms, CPU server %.2f µs, both %.2f",
			f.Ops*1e-3, f.P50*1e3, f.P99*1e3, f.ServerPerOp*1e6, f.BothPerOp*1e6)
	}
	return s
}

// field is one of the figures.
type field func(figures) float64

func rate(f figures) float64          { return f.Bytes }
func ops(f figures) float64           { return f.Ops }
func p50(f figures) float64           { return f.P50 }
func p99(f figures) float64           { return f.P99 }
func serverPerByte(f figures) float64 { return f.ServerPerByte }
func serverPerOp(f figures) float64   { return f.ServerPerOp }
func bothPerByte(f figures) float64   { return f.BothPerByte }
func bothPerOp(f figures) float64     { return f.BothPerOp }

// get is a figure of a cell by rounds.
func (r results) get(name string, of field) []float64 {
	var out []float64
	for _, f := range r.figures[name] {
		v := of(f)
		if math.IsInf(v, 0) {
			v = math.NaN()
		}
		out = append(out, v)
	}
	return out
}

// why is the reason when one of two cells failed, else empty.
func (r results) why(names ...string) string {
	for _, n := range names {
		if err := r.failed[n]; err != nil {
			return n + ": " + err.Error()
		}
	}
	return ""
}

// compare makes the row of one cell against another, by how much more of a figure it has.
func (r results) compare(name string, unit report.Unit, ours, peer string, of field, limit report.Limit) report.Row {
	if why := r.why(ours, peer); why != "" {
		return report.Lacking(name, limit, why)
	}
	return report.Compare(name, unit, r.get(ours, of), r.get(peer, of), limit)
}

// better is compare for what should be small: the ratio says how many times smaller ours is.
func (r results) better(name string, unit report.Unit, ours, peer string, of field, limit report.Limit) report.Row {
	if why := r.why(ours, peer); why != "" {
		return report.Lacking(name, limit, why)
	}
	return report.Smaller(name, unit, r.get(ours, of), r.get(peer, of), limit)
}
