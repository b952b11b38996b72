package h2

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTheReaderIsSaturatedByMuchOnly(t *testing.T) {
	tests := map[string]struct {
		busy, idle time.Duration
		bytes      int // a read
		want       bool
	}{
		"much, all the time":      {9 * time.Millisecond, time.Millisecond, 4 << 20, true},
		"much, now and then":      {time.Millisecond, 9 * time.Millisecond, 4 << 20, false},
		"little, all the time":    {9 * time.Millisecond, time.Millisecond, 4 << 10, false},
		"much, without any pause": {9 * time.Millisecond, 0, 4 << 20, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := reading{waits: true}
				if r.saturated() {
					t.Error("saturated before the first byte")
				}
				for range 30 {
					r.got(tt.bytes)
					time.Sleep(tt.busy)
					if tt.idle > 0 {
						r.pause()
						time.Sleep(tt.idle)
					}
				}
				if got := r.saturated(); got != tt.want {
					t.Errorf("saturated: %v", got)
				}
				r.pause()
				time.Sleep(time.Second)
				if r.saturated() {
					t.Error("saturated long after the last byte")
				}
			})
		})
	}
}
