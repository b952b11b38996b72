package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
	"github.com/isthmus-mesh/isthmus/e2e/ztunnel"
)

func TestMain(m *testing.M) {
	if proc.Inside() {
		if err := proc.Serve(setup); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{progress: io.Discard}
	var err error
	if b.cpus, err = proc.TwoCPUs(); err != nil {
		t.Fatal(err)
	}
	b.ca, b.clientID, b.serverID = carrier.NewCredentials()
	return b
}

// Every kind of process, client and server carries every load that the scenarios put on it.
func TestEachPartCarriesItsLoads(t *testing.T) {
	up, down := load.Spec{Kind: load.Up, Tunnels: 2}, load.Spec{Kind: load.Down, Tunnels: 2}
	echo, open := load.Spec{Kind: load.Echo, Tunnels: 5}, load.Spec{Kind: load.Open, Tunnels: 2}
	besideUp, besideDown := load.Spec{Kind: load.Beside, Bulk: load.Up}, load.Spec{Kind: load.Beside, Bulk: load.Down}
	flows := load.Spec{Kind: load.Up, Tunnels: 1, Flow: 1 << 20}
	far := ends(carrier.Ours, shared)
	far.oneWay = 5 * time.Millisecond
	for name, c := range map[string]struct {
		on    arrangement
		loads []load.Spec
	}{
		"ours":             {ends(carrier.Ours, shared), []load.Spec{up, down, echo, open, besideUp, besideDown}},
		"ours, apart":      {ends(carrier.Ours, apart), []load.Spec{up, down}},
		"ours, forwarding": {forwards(carrier.Ours, alone), []load.Spec{up, down, echo, open}},
		"ours, far away":   {far, []load.Spec{up, echo}},
		"optimistic":       {arrangement{client: carrier.Optimistic, server: carrier.Ours}, []load.Spec{echo, open}},
		"istio":            {forwards(carrier.Istio, shared), []load.Spec{up, down, open}},
		"x/net":            {ends(carrier.XNet, shared), []load.Spec{up, down, echo, open, besideUp, besideDown}},
		"tls":              {ends(carrier.TLS, apart), []load.Spec{up, down, echo}},
		"tcp":              {ends(carrier.Raw, apart), []load.Spec{up, down, echo}},
		"floor":            {ends(carrier.Floor, apart), []load.Spec{up, down}},
		"small frames":     {arrangement{client: carrier.Small, server: carrier.Ours, forward: true}, []load.Spec{up, flows}},
		"ztunnel":          {arrangement{client: carrier.Ours, other: aZtunnel, forward: true, layout: alone}, []load.Spec{up, down, echo, open}},
		"large frames":     {arrangement{client: carrier.Large, server: carrier.Ours, forward: true}, []load.Spec{up, flows}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.on.other == aZtunnel && os.Getenv(ztunnel.Env) == "" {
				t.Skip(ztunnel.Env + " is not set") // no package registry has one
			}
			s, err := newBench(t).start(t.Context(), c.on)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			for _, l := range c.loads {
				f, err := s.run(l, 20*time.Millisecond, 100*time.Millisecond, "")
				if err != nil {
					t.Fatalf("%+v: %v", l, err)
				}
				messages := l.Kind == load.Echo || l.Kind == load.Open || l.Kind == load.Beside
				if bytes := l.Kind != load.Echo && l.Kind != load.Open; bytes && (f.Bytes <= 0 || f.ServerPerByte <= 0) {
					t.Errorf("%+v: no bytes arrived, or they took no time: %+v", l, f)
				}
				if messages && (f.Ops <= 0 || f.P50 <= 0 || f.P99 < f.P50) {
					t.Errorf("%+v: no messages, or they took no time: %+v", l, f)
				}
			}
		})
	}
}

func TestIdleTunnelsAreWeighed(t *testing.T) {
	for name, on := range map[string]arrangement{
		"kept": {client: carrier.Ours, server: carrier.Ours, keep: true}, "forwarded": forwards(carrier.Ours, shared),
	} {
		sides, err := newBench(t).weighIdle(t.Context(), on, 400)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for side, w := range sides {
			if w.Heap <= 0 {
				t.Errorf("%s, %s: 400 tunnels take %d bytes of heap", name, side, w.Heap)
			}
		}
	}
}

func TestAnEndThatFailsIsToldAndNotDropped(t *testing.T) {
	s := scenario{
		name:  "broken",
		cells: []cell{{"a", arrangement{client: "nothing", server: carrier.Raw}, load.Spec{Kind: load.Up, Tunnels: 1}}},
		rows: func(r results) []report.Row {
			return []report.Row{r.compare("a ÷ a", report.Gbit, "a", "a", rate, report.AtLeast(1, 1))}
		},
	}
	b := newBench(t)
	rows := s.take(t.Context(), b)
	if b.failures != 1 {
		t.Errorf("%d failures are counted", b.failures)
	}
	if len(rows) != 1 || rows[0].Verdict() != report.NotHad || !strings.Contains(rows[0].Missing, `there is no client "nothing"`) {
		t.Errorf("got %+v", rows)
	}
}

// Scenarios refer to cells by name: a figure of a cell that is not there would be missing for ever. Each name fits the table.
func TestRowsReferToCellsThatExist(t *testing.T) {
	names := map[string]bool{}
	for _, s := range append(scenarios(false), ztunnelLoads()) {
		if s.special != nil {
			continue
		}
		r := results{map[string][]figures{}, map[string]error{}}
		for i, c := range s.cells {
			if _, twice := r.figures[c.name]; twice {
				t.Errorf("%s has two cells %q", s.name, c.name)
			}
			v := float64(i + 1)
			r.figures[c.name] = []figures{{v, v, v, v, v, v, v, v, v, v}}
		}
		for _, row := range s.rows(r) {
			if row.Verdict() == report.NotHad {
				t.Errorf("%s: %q: %s", s.name, row.Name, row.Missing)
			}
			if n := utf8.RuneCountInString(row.Name); n > report.NameWidth {
				t.Errorf("%s: %q has %d characters, the table has room for %d", s.name, row.Name, n, report.NameWidth)
			}
			if names[row.Name] {
				t.Errorf("two rows are called %q", row.Name)
			}
			names[row.Name] = true
		}
	}
}

func TestRunTellsThatNothingMatches(t *testing.T) {
	if err := run(t.Context(), []string{"-run", "^nothing$"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "-list") {
		t.Errorf("got %v", err)
	}
}

func TestRunPrintsJSON(t *testing.T) {
	t.Setenv(ztunnel.Env, "") // so that nothing is measured
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-short", "-json", "-run", "^ztunnel$"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Name, Verdict, Missing string }
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil || len(rows) == 0 {
		t.Fatalf("%v: %s", err, &out)
	}
	for _, r := range rows {
		if r.Verdict != report.NotHad || r.Missing == "" {
			t.Errorf("got %+v", r)
		}
	}
}
