package main

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
)

// scenarios are all there is to measure, in the order of the table.
func scenarios(short bool) []scenario {
	return []scenario{
		bulk(), bulk8(), forward(), opens(), forwardOpens(), echo(), beside(), idle(short), path(), firstByte(), pattern(), growth(short), besideEnvoy(),
		besideZtunnel(),
	}
}

// ends are both ends of one kind; the server ends the tunnels.
func ends(k carrier.Kind, l layout) arrangement { return arrangement{client: k, server: k, layout: l} }

// forwards are both ends of one kind in front of an application.
func forwards(k carrier.Kind, l layout) arrangement {
	return arrangement{client: k, server: k, layout: l, forward: true}
}

// bothWays are the cells of bulk loads: each kind up, then each down.
func bothWays(kinds []carrier.Kind, tunnels int, on func(carrier.Kind) arrangement) []cell {
	var cells []cell
	for _, dir := range []load.Kind{load.Up, load.Down} {
		for _, k := range kinds {
			cells = append(cells, cell{fmt.Sprintf("%s %s", k, dir), on(k), load.Spec{Kind: dir, Tunnels: tunnels}})
		}
	}
	return cells
}

var besidePeers = []carrier.Kind{carrier.Ours, carrier.TLS, carrier.XNet, carrier.Raw}

func bulk() scenario {
	return scenario{
		name: "bulk", about: "one tunnel, client and server on a core each",
		cells: bothWays(append(besidePeers, carrier.Floor), 1, func(k carrier.Kind) arrangement { return ends(k, apart) }),
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("bulk up ÷ crypto/tls", report.Gbit, "ours up", "tls up", rate, report.AtLeast(1.35, 1.6)),
				r.compare("bulk down ÷ crypto/tls", report.Gbit, "ours down", "tls down", rate, report.AtLeast(1.35, 1.6)),
				r.compare("floor up ÷ crypto/tls", report.Gbit, "floor up", "tls up", rate, report.Limit{}),
				r.compare("floor down ÷ crypto/tls", report.Gbit, "floor down", "tls down", rate, report.Limit{}),
				r.compare("bulk up ÷ floor", report.Gbit, "ours up", "floor up", rate, report.Limit{}),
				r.compare("bulk down ÷ floor", report.Gbit, "ours down", "floor down", rate, report.Limit{}),
				r.compare("bulk up ÷ x/net", report.Gbit, "ours up", "x/net up", rate, report.AtLeast(2.0, 2.4)),
				r.compare("bulk down ÷ x/net", report.Gbit, "ours down", "x/net down", rate, report.AtLeast(1.7, 2.0)),
				r.compare("bulk up ÷ TCP", report.Gbit, "ours up", "raw up", rate, report.AtLeast(0.65, 0.78)),
				r.compare("bulk down ÷ TCP", report.Gbit, "ours down", "raw down", rate, report.AtLeast(0.65, 0.78)),
				r.better("CPU a GB up, crypto/tls ÷ ours", report.PerGB, "ours up", "tls up", bothPerByte, report.AtLeast(0, 1.6)),
				r.better("CPU a GB down, crypto/tls ÷ ours", report.PerGB, "ours down", "tls down", bothPerByte, report.AtLeast(0, 1.6)),
				r.better("CPU a GB up, x/net ÷ ours", report.PerGB, "ours up", "x/net up", bothPerByte, report.AtLeast(0, 2.5)),
				r.better("CPU a GB down, x/net ÷ ours", report.PerGB, "ours down", "x/net down", bothPerByte, report.AtLeast(0, 2.1)),
			}
		},
	}
}

func bulk8() scenario {
	cells := bothWays(besidePeers, 8, func(k carrier.Kind) arrangement { return ends(k, shared) })
	for i := range cells {
		cells[i].load.Every = 120 * time.Millisecond // a pool that opens connections for those that are full needs to see it
	}
	return scenario{
		name: "bulk8", about: "eight tunnels that come one after the other, two cores", rounds: 5, cells: cells,
		rows: func(r results) []report.Row {
			var rows []report.Row
			for _, dir := range []string{"up", "down"} {
				rows = append(rows,
					r.compare("8 tunnels "+dir+" ÷ 8 crypto/tls", report.Gbit, "ours "+dir, "tls "+dir, rate, report.AtLeast(0, 1.15)),
					r.compare("8 tunnels "+dir+" ÷ x/net", report.Gbit, "ours "+dir, "x/net "+dir, rate, report.AtLeast(0, 2.5)),
					r.compare("8 tunnels "+dir+" ÷ 8 TCP", report.Gbit, "ours "+dir, "raw "+dir, rate, report.AtLeast(0, 0.53)))
			}
			return rows
		},
	}
}

func forward() scenario {
	return scenario{
		name: "forward", about: "one tunnel to a server that forwards to an application, two cores",
		cells: bothWays([]carrier.Kind{carrier.Ours, carrier.Istio}, 1, func(k carrier.Kind) arrangement { return forwards(k, shared) }),
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("forwarding up ÷ Istio", report.Gbit, "ours up", "istio up", rate, report.AtLeast(2.6, 3.2)),
				r.compare("forwarding down ÷ Istio", report.Gbit, "ours down", "istio down", rate, report.AtLeast(2.0, 2.8)),
				r.better("CPU a GB forwarded up, Istio ÷ ours", report.PerGB, "ours up", "istio up", bothPerByte, report.Limit{}),
				r.better("CPU a GB forwarded down, Istio ÷ ours", report.PerGB, "ours down", "istio down", bothPerByte, report.Limit{}),
			}
		},
	}
}

func opens() scenario {
	spec := load.Spec{Kind: load.Open, Tunnels: 64}
	optimistic := arrangement{client: carrier.Optimistic, server: carrier.Ours}
	return scenario{
		name: "opens", about: "64 openers (CONNECT, 200, a byte echoed, close), two cores",
		cells: []cell{
			{"ours", ends(carrier.Ours, shared), spec}, {"optimistic", optimistic, spec}, {"x/net", ends(carrier.XNet, shared), spec},
		},
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("opens, 64 openers ÷ x/net", report.Rate, "ours", "x/net", ops, report.AtLeast(4.5, 6)),
				r.compare("optimistic opens ÷ x/net", report.Rate, "optimistic", "x/net", ops, report.AtLeast(7, 10)),
			}
		},
	}
}

func forwardOpens() scenario {
	spec := load.Spec{Kind: load.Open, Tunnels: 64}
	return scenario{
		name: "forwardopens", about: "64 openers to a server that forwards, two cores",
		cells: []cell{{"ours", forwards(carrier.Ours, shared), spec}, {"istio", forwards(carrier.Istio, shared), spec}},
		rows: func(r results) []report.Row {
			return []report.Row{r.compare("forwarding opens, 64 openers ÷ Istio", report.Rate, "ours", "istio", ops, report.AtLeast(2, 2.2))}
		},
	}
}

func echo() scenario {
	var cells []cell
	for _, n := range []int{64, 1000} {
		for _, k := range []carrier.Kind{carrier.Ours, carrier.XNet} {
			cells = append(cells, cell{fmt.Sprintf("%s %d", k, n), ends(k, shared), load.Spec{Kind: load.Echo, Tunnels: n}})
		}
	}
	return scenario{
		name: "echo", about: "messages of 100 bytes there and back on many tunnels, two cores", cells: cells,
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("echo on 64 tunnels ÷ x/net", report.Rate, "ours 64", "x/net 64", ops, report.AtLeast(6, 8)),
				r.compare("echo on 1000 tunnels ÷ x/net", report.Rate, "ours 1000", "x/net 1000", ops, report.AtLeast(8.5, 11)),
			}
		},
	}
}

func beside() scenario {
	var cells []cell
	for _, dir := range []load.Kind{load.Up, load.Down} {
		for _, k := range []carrier.Kind{carrier.Ours, carrier.XNet} {
			cells = append(cells, cell{fmt.Sprintf("%s %s", k, dir), ends(k, shared), load.Spec{Kind: load.Beside, Bulk: dir}})
		}
	}
	return scenario{
		name: "beside", about: "messages on one tunnel beside bulk on another of the same connection, two cores", cells: cells,
		long: 700 * time.Millisecond,
		rows: func(r results) []report.Row {
			return []report.Row{
				r.better("p99 beside bulk up, x/net ÷ ours", report.Millis, "ours up", "x/net up", p99, report.AtLeast(6, 12)),
				r.compare("bulk up meanwhile ÷ x/net", report.Gbit, "ours up", "x/net up", rate, report.AtLeast(1.2, 1.9)),
				r.better("p99 beside bulk down, x/net ÷ ours", report.Millis, "ours down", "x/net down", p99, report.AtLeast(6, 12)),
				r.compare("bulk down meanwhile ÷ x/net", report.Gbit, "ours down", "x/net down", rate, report.AtLeast(1.2, 1.9)),
			}
		},
	}
}

// oneWay is half the round trip of the long path.
const oneWay = 25 * time.Millisecond

func path() scenario {
	return scenario{
		name: "path", about: "one tunnel on a path of 50 ms", rounds: 3, warm: 2 * time.Second, long: 1500 * time.Millisecond,
		cells: bothWays([]carrier.Kind{carrier.Ours, carrier.Raw, carrier.XNet}, 1, func(k carrier.Kind) arrangement {
			a := ends(k, shared)
			a.oneWay = oneWay
			return a
		}),
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("50 ms path up ÷ TCP", report.Gbit, "ours up", "raw up", rate, report.AtLeast(0.9, 0.95)),
				r.compare("50 ms path down ÷ TCP", report.Gbit, "ours down", "raw down", rate, report.AtLeast(0.9, 0.95)),
				r.compare("50 ms path up ÷ x/net", report.Gbit, "ours up", "x/net up", rate, report.AtLeast(0, 8.5)),
				r.compare("50 ms path down ÷ x/net", report.Gbit, "ours down", "x/net down", rate, report.AtLeast(0, 8.5)),
			}
		},
	}
}

func firstByte() scenario {
	spec := load.Spec{Kind: load.Open, Tunnels: 1}
	far := func(client, server carrier.Kind) arrangement {
		return arrangement{client: client, server: server, oneWay: oneWay}
	}
	return scenario{
		name: "firstbyte", about: "from dial to the first byte back on a warm connection, path of 50 ms; a round trip is what TCP takes there and back",
		rounds: 3, warm: 500 * time.Millisecond, long: time.Second,
		cells: []cell{
			{"ours", far(carrier.Ours, carrier.Ours), spec},
			{"optimistic", far(carrier.Optimistic, carrier.Ours), spec},
			{"tcp", far(carrier.Raw, carrier.Raw), load.Spec{Kind: load.Echo, Tunnels: 1}},
			{"x/net", far(carrier.XNet, carrier.XNet), spec},
		},
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("warm first byte, optimistic ÷ RTT", report.Millis, "optimistic", "tcp", p50, report.AtMost(1.05, 1.05)),
				r.compare("warm first byte, after the 200 ÷ RTT", report.Millis, "ours", "tcp", p50, report.Limit{}),
				r.compare("warm first byte, x/net ÷ RTT", report.Millis, "x/net", "tcp", p50, report.Limit{}),
			}
		},
	}
}

// flow is how much a tunnel of pattern carries: after so much ztunnel sends larger frames.
const flow = 10 << 20

func pattern() scenario {
	from := func(k carrier.Kind) arrangement {
		return arrangement{client: k, server: carrier.Ours, forward: true, layout: alone}
	}
	long := load.Spec{Kind: load.Up, Tunnels: 1}
	flows := load.Spec{Kind: load.Up, Tunnels: 1, Flow: flow}
	return scenario{
		name: "pattern", about: "ztunnel's frames, each in a record of its own, against frames of 64 KiB; our server forwards, on a core alone",
		cells: []cell{
			{"small flows", from(carrier.Small), flows}, {"large flows", from(carrier.Large), flows},
			{"small", from(carrier.Small), long}, {"large", from(carrier.Large), long}, {"ours", from(carrier.Ours), long},
		},
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("CPU a GB, ztunnel's frames, short flows", report.PerGB, "small flows", "large flows", serverPerByte, report.AtMost(1.15, 0)),
				r.compare("CPU a GB, ztunnel's frames, one tunnel", report.PerGB, "small", "large", serverPerByte, report.AtMost(1.15, 0)),
				r.compare("CPU a GB, ztunnel's frames ÷ our own", report.PerGB, "small", "ours", serverPerByte, report.Limit{AtMost: true}),
			}
		},
	}
}

func growth(short bool) scenario {
	sizes := []int{1, 10, 100, 1000, 10000}
	if short {
		sizes = sizes[:4]
	}
	var cells []cell
	for _, n := range sizes {
		cells = append(cells, cell{fmt.Sprint(n), ends(carrier.Ours, shared), load.Spec{Kind: load.Echo, Tunnels: n}})
	}
	return scenario{
		name: "growth", about: "messages on more and more tunnels to one server, two cores", cells: cells, rounds: 5, warm: 300 * time.Millisecond,
		rows: func(r results) []report.Row {
			var rows []report.Row
			for i := 1; i < len(sizes); i++ {
				now, before := fmt.Sprint(sizes[i]), fmt.Sprint(sizes[i-1])
				rows = append(rows, r.compare("messages, "+now+" ÷ "+before+" tunnels", report.Rate, now, before, ops, report.AtLeast(noise, 1)))
			}
			for i := 1; i < len(sizes); i++ {
				now, before := fmt.Sprint(sizes[i]), fmt.Sprint(sizes[i-1])
				rows = append(rows, r.compare("CPU a message, "+now+" ÷ "+before+" tunnels", report.Micros, now, before, bothPerOp, report.AtMost(1/noise, 1)))
			}
			return rows
		},
	}
}

// noise is how far below 1 a ratio may be that should not fall.
const noise = 0.9

// strangerLoads are our server and another that forwards, on a core alone, behind our client, under each load that a gateway has.
func strangerLoads(who stranger) []cell {
	var cells []cell
	for _, l := range []struct {
		name string
		spec load.Spec
	}{
		{"up", load.Spec{Kind: load.Up, Tunnels: 1}},
		{"down", load.Spec{Kind: load.Down, Tunnels: 1}},
		{"echo", load.Spec{Kind: load.Echo, Tunnels: 64}},
		{"open", load.Spec{Kind: load.Open, Tunnels: 64}},
	} {
		cells = append(cells,
			cell{"ours " + l.name, arrangement{client: carrier.Ours, server: carrier.Ours, forward: true, layout: alone}, l.spec},
			cell{string(who) + " " + l.name, arrangement{client: carrier.Ours, other: who, forward: true, layout: alone}, l.spec})
	}
	return cells
}

func besideEnvoy() scenario {
	return scenario{
		name: "envoy", about: "server CPU beside Envoy: the server forwards, on a core alone, behind our client", cells: strangerLoads(anEnvoy),
		rows: func(r results) []report.Row {
			return []report.Row{
				r.compare("server CPU a GB up ÷ Envoy", report.PerGB, "ours up", "envoy up", serverPerByte, report.AtMost(1, 0.8)),
				r.compare("server CPU a GB down ÷ Envoy", report.PerGB, "ours down", "envoy down", serverPerByte, report.AtMost(1, 0.8)),
				r.compare("server CPU an echo (64 tunnels) ÷ Envoy", report.Micros, "ours echo", "envoy echo", serverPerOp, report.AtMost(0.8, 0)),
				r.compare("server CPU an open (64 openers) ÷ Envoy", report.Micros, "ours open", "envoy open", serverPerOp, report.AtMost(0.65, 0)),
			}
		},
	}
}
