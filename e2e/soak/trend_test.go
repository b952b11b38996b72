package soak

import (
	"math"
	"slices"
	"time"
)

const (
	// warmUp is how long a process may take to reach its size: heaps grow to their first collections, pages of code come in.
	warmUp = 30 * time.Second
	// minLife is how long a process must go on after that to show a trend.
	minLife = 2 * time.Minute
	// sure is how many standard errors a slope must be above what is allowed to count as a leak; with missed more of them chance hides one
	// leak in twenty at the most.
	sure, missed = 3, 2
)

// point is a sample of one quantity.
type point struct {
	at    time.Duration
	value float64
}

// trend is the common slope of a quantity over the lives of all processes in a role.
type trend struct {
	slope   float64 // units an hour
	noise   float64 // its standard error
	allowed float64 // units an hour that a process which still settles may gain
}

// leaks says whether the growth is more than noise and settling.
func (t trend) leaks() bool { return t.slope-sure*t.noise > t.allowed }

// sees is the smallest leak, in units an hour, that would be found.
func (t trend) sees() float64 { return t.allowed + (sure+missed)*t.noise }

// fit finds the trend by least squares, each life about its own means. Values of a life follow from each other, so that a hundred of them
// say less than a hundred by chance would: the standard error is that of a first-order autoregressive process. slack is what a process may
// gain in its life though it leaks nothing. ok is false where no life is long enough.
func fit(lives [][]point, slack float64) (t trend, ok bool) {
	type centred struct{ x, y float64 } // hours and units, about their means
	var all [][]centred
	var xx, xy, longest float64
	n := 0
	for _, l := range lives {
		l = settled(l)
		if len(l) == 0 {
			continue
		}
		var x, y float64
		for _, p := range l {
			x, y = x+p.at.Hours()/float64(len(l)), y+p.value/float64(len(l))
		}
		var c []centred
		for _, p := range l {
			c = append(c, centred{p.at.Hours() - x, p.value - y})
			xx, xy = xx+(p.at.Hours()-x)*(p.at.Hours()-x), xy+(p.at.Hours()-x)*(p.value-y)
		}
		all, n, longest = append(all, c), n+len(l), max(longest, (l[len(l)-1].at-l[0].at).Hours())
	}
	if n < len(all)+3 || xx == 0 {
		return trend{}, false
	}
	t.slope, t.allowed = xy/xx, slack/longest
	var squares, follow float64 // of what the line does not explain
	for _, c := range all {
		before := 0.0
		for _, p := range c {
			r := p.y - t.slope*p.x
			squares, follow = squares+r*r, follow+r*before
			before = r
		}
	}
	if squares > 0 {
		rho := max(follow/squares, 0)
		rho += (2 + 4*rho) * float64(len(all)) / float64(n) // what a short series hides of it
		rho = min(rho, 0.98)
		t.noise = math.Sqrt(squares / float64(n-len(all)-1) / xx * (1 + rho) / (1 - rho))
	}
	return t, true
}

// settled is what a life shows after its warm-up; nothing when that is too short.
func settled(life []point) []point {
	if len(life) == 0 {
		return nil
	}
	from := slices.IndexFunc(life, func(p point) bool { return p.at >= life[0].at+warmUp })
	if from < 0 || life[len(life)-1].at-life[from].at < minLife {
		return nil
	}
	return life[from:]
}
