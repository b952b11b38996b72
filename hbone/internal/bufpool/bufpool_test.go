package bufpool

import "testing"

func TestSizes(t *testing.T) {
	for _, size := range []int{0, 1, 1 << 10, 1<<10 + 1, 64 << 10, Max, Max + 1, 3 << 20} {
		b := Get(size)
		if len(b.B) < size {
			t.Errorf("asked for %d, got %d", size, len(b.B))
		}
		if size <= Max && len(b.B) > 4*max(size, 256) {
			t.Errorf("asked for %d, got as much as %d", size, len(b.B))
		}
		b.Free()
	}
}

func TestOutCountsWhatIsNotGivenBack(t *testing.T) {
	before := Get(10) // lent before Track: not counted
	Track(true)
	defer Track(false)
	a, b := Get(10), Get(2*Max)
	before.Free()
	if n := Out(); n != 2 {
		t.Errorf("%d are out, want 2", n)
	}
	a.Free()
	b.Free()
	if n := Out(); n != 0 {
		t.Errorf("%d are out, want none", n)
	}
}

func BenchmarkGetFree(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Get(16 << 10).Free()
	}
}
