package policy

import "testing"

// What may be so is all that comes out of what each side may be.
func TestThreeValues(t *testing.T) {
	all := []tri{no, yes, maybe}
	bools := func(v tri) (list []bool) {
		if v.has(no) {
			list = append(list, false)
		}
		if v.has(yes) {
			list = append(list, true)
		}
		return list
	}
	for _, a := range all {
		var not tri
		for _, x := range bools(a) {
			not |= is(!x)
		}
		if a.not() != not || a.flip(true) != not || a.flip(false) != a {
			t.Errorf("not %d is %d", a, a.not())
		}
		for _, b := range all {
			var and, or tri
			for _, x := range bools(a) {
				for _, y := range bools(b) {
					and, or = and|is(x && y), or|is(x || y)
				}
			}
			if a.and(b) != and || a.or(b) != or {
				t.Errorf("%d and %d is %d, or is %d", a, b, a.and(b), a.or(b))
			}
		}
	}
}

func TestValues(t *testing.T) {
	for name, tt := range map[string]struct {
		v             Values[string]
		known, absent bool
		size          int
	}{
		"nothing":               {Values[string]{}, false, false, 1},
		"one of none":           {Of[string](), false, false, 1},
		"one of none or absent": {Of[string]().OrAbsent(), false, false, 1},
		"one":                   {Of("a"), true, false, 1},
		"two or absent":         {Of("a", "b").OrAbsent(), true, true, 3},
		"absent":                {Absent[string](), true, true, 1},
	} {
		if tt.v.Known() != tt.known || tt.v.absent != tt.absent || tt.v.size() != tt.size {
			t.Errorf("%s: %+v", name, tt.v)
		}
	}
}
