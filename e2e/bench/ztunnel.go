package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
	"github.com/isthmus-mesh/isthmus/e2e/ztunnel"
)

// besideZtunnel is for a ztunnel that the user has.
func besideZtunnel() scenario {
	return scenario{
		name: "ztunnel", about: "server CPU and memory beside ztunnel, where " + ztunnel.Env + " is given",
		special: func(ctx context.Context, b *bench) []report.Row {
			if os.Getenv(ztunnel.Env) == "" {
				r := results{failed: map[string]error{}}
				why := fmt.Errorf("%s is not set; ztunnel is in no package registry", ztunnel.Env)
				for _, c := range strangerLoads(aZtunnel) {
					r.failed[c.name] = why
				}
				return append(ztunnelRows(r), report.Lacking(ztunnelIdleRow, ztunnelIdleLimit, why.Error()))
			}
			return append(ztunnelLoads().take(ctx, b), b.idleBesideZtunnel(ctx))
		},
	}
}

// ztunnelLoads are what CPU is measured of.
func ztunnelLoads() scenario {
	return scenario{name: "ztunnel", cells: strangerLoads(aZtunnel), rows: ztunnelRows}
}

func ztunnelRows(r results) []report.Row {
	return []report.Row{
		r.compare("server CPU a GB up ÷ ztunnel", report.PerGB, "ours up", "ztunnel up", serverPerByte, report.AtMost(1, 0.85)),
		r.compare("server CPU a GB down ÷ ztunnel", report.PerGB, "ours down", "ztunnel down", serverPerByte, report.AtMost(1, 0.85)),
		r.compare("server CPU an echo ÷ ztunnel", report.Micros, "ours echo", "ztunnel echo", serverPerOp, report.AtMost(0.5, 0)),
		r.compare("server CPU an open ÷ ztunnel", report.Micros, "ours open", "ztunnel open", serverPerOp, report.AtMost(0.4, 0)),
	}
}

const ztunnelIdleRow = "resident an idle forwarded one ÷ ztunnel"

var ztunnelIdleLimit = report.AtMost(0.45, 0)

// idleBesideZtunnel is what an idle forwarded tunnel takes at our server and at ztunnel.
func (b *bench) idleBesideZtunnel(ctx context.Context) report.Row {
	n := idleForwarded
	if b.short {
		n = 400
	}
	ours, err := b.weighIdle(ctx, forwards(carrier.Ours, shared), n)
	if err != nil {
		return report.Lacking(ztunnelIdleRow, ztunnelIdleLimit, "ours: "+err.Error())
	}
	theirs, err := b.weighIdle(ctx, arrangement{client: carrier.Ours, other: aZtunnel, forward: true}, n)
	if err != nil {
		return report.Lacking(ztunnelIdleRow, ztunnelIdleLimit, "ztunnel: "+err.Error())
	}
	each := func(w weight) []float64 { return []float64{float64(w.rss) / float64(n)} }
	return report.Compare(ztunnelIdleRow, report.Bytes, each(ours["server"]), each(theirs["server"]), ztunnelIdleLimit)
}

// startZtunnel runs the user's ztunnel. It has one worker on a core alone, as Envoy has, and does not log connections: no other server does.
func (b *bench) startZtunnel(ctx context.Context, where proc.Placement) (other, error) {
	c := ztunnel.Config{
		Program: os.Getenv(ztunnel.Env), CA: b.ca, Env: []string{"RUST_LOG=warn"},
		Start: func(cmd *exec.Cmd) error { return proc.StartOn(cmd, where.CPUs) },
	}
	if len(where.CPUs) == 1 {
		c.Env = append(c.Env, "ZTUNNEL_WORKER_THREADS=1")
	}
	z, err := ztunnel.Serve(ctx, c)
	if err != nil {
		return nil, err
	}
	return z, nil
}
