package soak

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// phase is a time in which the same answers are expected.
type phase struct {
	event string // what it is a part of, for the table
	name  string
	// want says of an answer's kind, in a lane, whether the phase explains it. Nil: all is as at rest.
	want func(l *lane, kind string) bool
}

// answer is one request's end.
type answer struct {
	lane *lane
	kind string // "200", "403", … or how the connection failed
	text string // for people
	took time.Duration
}

// ledger counts answers by the event in which they came.
type ledger struct {
	rest func(l *lane, kind string) bool

	mu     sync.Mutex // guards the fields below
	now    *phase
	counts map[string]map[string]int // by event, by "lane kind"
	bad    map[string]int            // by event: those that nothing explains
	first  []string                  // the first of them
	last   map[*lane]answer
	took   []time.Duration
}

func newLedger(rest func(l *lane, kind string) bool) *ledger {
	return &ledger{rest: rest, now: &phase{event: "rest", name: "rest"}, counts: map[string]map[string]int{}, bad: map[string]int{}, last: map[*lane]answer{}}
}

// enter begins a phase.
func (l *ledger) enter(p *phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = p
}

func (l *ledger) phase() *phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// explained says whether a phase accounts for an answer.
func (l *ledger) explained(p *phase, a answer) bool {
	if p.want != nil {
		return p.want(a.lane, a.kind)
	}
	return l.rest(a.lane, a.kind)
}

// add counts the answer to a request that began in phase began. Either phase may explain it.
func (l *ledger) add(began *phase, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.now
	if at.event == "rest" {
		at = began
	}
	if l.counts[at.event] == nil {
		l.counts[at.event] = map[string]int{}
	}
	l.counts[at.event][a.lane.name+" "+a.kind]++
	l.last[a.lane] = a
	l.took = append(l.took, a.took)
	if l.explained(began, a) || l.explained(l.now, a) {
		return
	}
	l.bad[at.event]++
	if len(l.first) < 20 {
		l.first = append(l.first, fmt.Sprintf("%s %s > %s: %s got %s after %v: %s", time.Now().Format("15:04:05.000"), began.name, l.now.name, a.lane.name, a.kind, a.took.Round(time.Millisecond), a.text))
	}
}

// failures is what nothing explains, and the first of it.
func (l *ledger) failures() (int, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, b := range l.bad {
		n += b
	}
	return n, slices.Clone(l.first)
}

// table is a line an event: how many answers, which not 200, how many unexplained.
func (l *ledger) table() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %9s %12s  %s\n", "event", "requests", "unexplained", "answers other than those at rest")
	for _, event := range slices.Sorted(maps.Keys(l.counts)) {
		total, other := 0, []string{}
		for _, k := range slices.Sorted(maps.Keys(l.counts[event])) {
			n := l.counts[event][k]
			total += n
			if name, kind, _ := strings.Cut(k, " "); !l.rest(&lane{name: name, impostor: name == "impostor"}, kind) {
				other = append(other, fmt.Sprintf("%s × %d", k, n))
			}
		}
		fmt.Fprintf(&b, "%-16s %9d %12d  %s\n", event, total, l.bad[event], cmp.Or(strings.Join(other, ", "), "none"))
	}
	slices.Sort(l.took)
	if n := len(l.took); n > 0 {
		fmt.Fprintf(&b, "%d requests; half within %v, 99 %% within %v, the slowest %v\n", n, l.took[n/2].Round(100*time.Microsecond), l.took[n*99/100].Round(100*time.Microsecond), l.took[n-1].Round(time.Millisecond))
	}
	return b.String()
}
