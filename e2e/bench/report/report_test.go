package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

var nan = math.NaN()

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{nil, nan}, {[]float64{nan}, nan}, {[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{5, nan, 1}, 3},
	} {
		if got := Median(c.in); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("Median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// A machine that is half as fast in one round changes no ratio.
func TestRatiosAreThoseOfTheRounds(t *testing.T) {
	r := Compare("x", Gbit, []float64{20, 10, 22}, []float64{10, 5, 10}, AtLeast(1.5, 2))
	if r.Ratio != 2 || r.Least != 2 || r.Most != 2.2 || r.Verdict() != Goal {
		t.Errorf("got %+v, %s", r, r.Verdict())
	}
	s := Smaller("x", Millis, []float64{1, 2}, []float64{10, 20}, AtLeast(6, 12))
	if s.Ratio != 10 || s.Ours != 1.5 || s.Peer != 15 || s.Verdict() != Pass {
		t.Errorf("got %+v, %s", s, s.Verdict())
	}
}

func TestRoundsThatLackOneFigureDoNotCount(t *testing.T) {
	r := Compare("x", Gbit, []float64{nan, 10, 9}, []float64{10, 5, nan}, AtLeast(1, 1))
	if r.Ratio != 2 {
		t.Errorf("got %v", r.Ratio)
	}
	r = Compare("x", Gbit, []float64{nan}, []float64{1}, AtLeast(1, 1))
	if r.Verdict() != NotHad || r.Missing == "" {
		t.Errorf("got %+v", r)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		ratio float64
		limit Limit
		want  string
	}{
		{2, AtLeast(1, 2), Goal},
		{1.9, AtLeast(1, 2), Pass},
		{0.9, AtLeast(1, 2), Miss},
		{0.9, AtLeast(0, 2), Low},
		{2.1, AtLeast(0, 2), Goal},
		{1, AtLeast(1, 0), Pass},
		{1, AtMost(1, 0.8), Pass},
		{0.8, AtMost(1, 0.8), Goal},
		{1.01, AtMost(1, 0.8), Miss},
		{0, AtMost(0.001, 0.001), Goal},
		{5, Limit{}, NoLimit},
		{nan, AtLeast(1, 2), NotHad},
	} {
		if got := (Row{Ratio: c.ratio, Limit: c.limit}).Verdict(); got != c.want {
			t.Errorf("%v with %+v: %s, want %s", c.ratio, c.limit, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	rows := []Row{
		Compare("bulk", Gbit, []float64{2e9, 4e9}, []float64{1e9, 1e9}, AtLeast(2.5, 4)),
		Absolute("heap", Bytes, []float64{1234.4}, AtMost(300, 300)),
		Lacking("gone", AtLeast(1, 0), "the server did not start: exit status 1"),
		Lacking("gone too", AtLeast(1, 0), "the server did not start: exit status 1"),
		Lacking("away", Limit{}, strings.Repeat("it went away ", 9)),
	}
	var b strings.Builder
	if err := Write(&b, rows); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"figure                                         ours        peer  ratio    low-high  must  goal     ",
		strings.Repeat("-", 99),
		"bulk                                    24.0 Gbit/s 8.00 Gbit/s   3.00   2.00-4.00 ≥2.50 ≥4.00 PASS",
		"heap                                         1234 B           -   1234              ≤300  ≤300 MISS",
		"gone                                              -           -    [1]             ≥1.00        n/a",
		"gone too                                          -           -    [1]             ≥1.00        n/a",
		"away                                              -           -    [2]                          n/a",
		"[1] the server did not start: exit status 1",
		"[2] it went away it went away it went away it went away it went away it went away it went away it",
		"    went away it went away",
	}
	got := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("line %d differs:\n%s\nwant\n%s", i, b.String(), strings.Join(want, "\n"))
		}
		if n := utf8.RuneCountInString(got[i]); n > 100 {
			t.Errorf("%q has %d columns", got[i], n)
		}
	}
	if s := Sum(rows); s != "0 GOAL, 1 PASS, 0 LOW, 1 MISS, 3 n/a" {
		t.Error(s)
	}
}

func TestJSONHasNoNaN(t *testing.T) {
	b, err := json.Marshal(Lacking("gone", AtLeast(1, 0), "why"))
	if err != nil || !strings.Contains(string(b), `"ratio":null`) || !strings.Contains(string(b), `"missing":"why"`) {
		t.Errorf("%s, %v", b, err)
	}
}
