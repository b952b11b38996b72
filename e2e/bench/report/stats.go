// Package report turns figures of interleaved rounds into ratios, and ratios into one table.
package report

import (
	"math"
	"slices"
)

// Median is the middle of v, the mean of the two in the middle for an even number. NaNs do not count; of none it is NaN.
func Median(v []float64) float64 {
	s := slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	if len(s) == 0 {
		return math.NaN()
	}
	slices.Sort(s)
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// Paired divides a by b round by round: what disturbs the machine for seconds then meets both. Rounds that only one of them has, and
// those in which b is zero, are left out.
func Paired(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 && !math.IsNaN(a[i]) && !math.IsNaN(b[i]) {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

// Span is the smallest and the largest of v, NaN for none.
func Span(v []float64) (low, high float64) {
	if len(v) == 0 {
		return math.NaN(), math.NaN()
	}
	return slices.Min(v), slices.Max(v)
}
