package report

import (
	"encoding/json"
	"fmt"
	"math"
)

// Limit is what a figure has to be.
type Limit struct {
	Must, Goal float64 // zero: none
	AtMost     bool    // less is better: the figure must not exceed them
}

// AtLeast is the limit of a figure that should be large.
func AtLeast(must, goal float64) Limit { return Limit{Must: must, Goal: goal} }

// AtMost is the limit of a figure that should be small.
func AtMost(must, goal float64) Limit { return Limit{Must: must, Goal: goal, AtMost: true} }

func (l Limit) holds(v, limit float64) bool {
	if l.AtMost {
		return v <= limit
	}
	return v >= limit
}

// Row is one line of the table.
type Row struct {
	Name        string
	Ours, Peer  float64 // medians, in Unit; NaN: there is none
	Unit        Unit
	Ratio       float64 // what Limit is about
	Least, Most float64 // of the ratio among the rounds
	Limit       Limit
	Missing     string // why the figure could not be taken; else empty
}

// Verdicts.
const (
	Goal    = "GOAL" // goal and must are met
	Pass    = "PASS" // the must is met
	Miss    = "MISS"
	Low     = "LOW" // below the goal, and there is no must
	NotHad  = "n/a" // the figure could not be taken
	NoLimit = "-"   // shown for comparison
)

// Compare makes the row of ours against peer, both by rounds; the ratio is the median of ours ÷ peer of each round.
func Compare(name string, unit Unit, ours, peer []float64, limit Limit) Row {
	ratios := Paired(ours, peer)
	low, high := Span(ratios)
	r := Row{Name: name, Unit: unit, Ours: Median(ours), Peer: Median(peer), Ratio: Median(ratios), Least: low, Most: high, Limit: limit}
	if len(ratios) == 0 {
		r.Missing = "no round gave both figures"
	}
	return r
}

// Smaller makes the row of figures that should be small: the ratio is the median of peer ÷ ours of each round.
func Smaller(name string, unit Unit, ours, peer []float64, limit Limit) Row {
	r := Compare(name, unit, ours, peer, limit)
	ratios := Paired(peer, ours)
	r.Least, r.Most = Span(ratios)
	r.Ratio = Median(ratios)
	return r
}

// Absolute makes the row of a figure that is held against a number. The figures are in the limit's unit.
func Absolute(name string, unit Unit, ours []float64, limit Limit) Row {
	low, high := Span(ours)
	r := Row{Name: name, Unit: unit, Ours: Median(ours), Peer: math.NaN(), Ratio: Median(ours), Least: low, Most: high, Limit: limit}
	if len(ours) == 0 {
		r.Missing = "no round gave the figure"
	}
	return r
}

// Lacking makes the row of a figure that could not be taken.
func Lacking(name string, limit Limit, why string) Row {
	nan := math.NaN()
	return Row{Name: name, Ours: nan, Peer: nan, Ratio: nan, Least: nan, Most: nan, Limit: limit, Missing: why}
}

// Verdict is one of the constants above.
func (r Row) Verdict() string {
	switch l := r.Limit; {
	case r.Missing != "" || math.IsNaN(r.Ratio):
		return NotHad
	case l.Must == 0 && l.Goal == 0:
		return NoLimit
	case l.Must != 0 && !l.holds(r.Ratio, l.Must):
		return Miss
	case l.Goal != 0 && l.holds(r.Ratio, l.Goal):
		return Goal
	case l.Must == 0:
		return Low
	default:
		return Pass
	}
}

// MarshalJSON writes figures that are not there as null.
func (r Row) MarshalJSON() ([]byte, error) {
	number := func(v float64) any {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return v
	}
	return json.Marshal(map[string]any{
		"name": r.Name, "unit": r.Unit.Name, "ours": number(r.Ours), "peer": number(r.Peer), "ratio": number(r.Ratio),
		"low": number(r.Least), "high": number(r.Most), "must": r.Limit.Must, "goal": r.Limit.Goal, "at_most": r.Limit.AtMost,
		"verdict": r.Verdict(), "missing": r.Missing,
	})
}

// Unit says how a figure is written.
type Unit struct {
	Name  string
	Scale float64 // what one unit is of the figure's own: 1e9/8 bytes a second are 1 Gbit/s
}

// The units of the table.
var (
	Gbit   = Unit{"Gbit/s", 1e9 / 8} // of bytes a second
	PerGB  = Unit{"s/GB", 1e-9}      // of seconds a byte
	Rate   = Unit{"k/s", 1e3}        // of events a second
	Micros = Unit{"µs", 1e-6}        // of seconds
	Millis = Unit{"ms", 1e-3}        // of seconds
	Bytes  = Unit{"B", 1}            // of bytes
	Count  = Unit{"", 1}             // of things
)

// Text is v in this unit with three digits that matter.
func (u Unit) Text(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	if u.Scale != 0 {
		v /= u.Scale
	}
	s := digits(v)
	if u.Name == "" {
		return s
	}
	return s + " " + u.Name
}

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// Sum counts the verdicts.
func Sum(rows []Row) string {
	count := map[string]int{}
	for _, r := range rows {
		count[r.Verdict()]++
	}
	return fmt.Sprintf("%d GOAL, %d PASS, %d LOW, %d MISS, %d n/a", count[Goal], count[Pass], count[Low], count[Miss], count[NotHad])
}
