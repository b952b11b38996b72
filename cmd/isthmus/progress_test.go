package main

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressIsSaidAfterTwoSeconds(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		want string
	}{
		{1900 * time.Millisecond, ""},
		{2100 * time.Millisecond, "reading ...\n"},
		{time.Minute, "reading ...\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{stderr: &out}
			done := a.progress("reading")
			time.Sleep(c.took)
			done()
			if out.String() != c.want {
				t.Errorf("after %v: %q, want %q", c.took, out.String(), c.want)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"a b c", 0, []string{"a b c"}},
		{"a b c", 5, []string{"a b c"}},
		{"a b c", 3, []string{"a b", "c"}},
		{"longer than that", 4, []string{"longer", "than", "that"}},
		{"öö öö", 2, []string{"öö", "öö"}},
	} {
		got := wrap(c.text, c.width)
		if len(got) != len(c.want) {
			t.Errorf("wrap(%q, %d) = %q", c.text, c.width, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("wrap(%q, %d) = %q", c.text, c.width, got)
			}
		}
	}
}

func TestCommandsOfFixesStayWhole(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"have a ready pod", 8, []string{"have a", "ready", "pod"}},
		{"take it away: kubectl label ns a b-", 12, []string{"take it", "away:", "kubectl label ns a b-"}},
		{"one: kubectl get a -o b; or the other: isthmus check -n a; else no more", 9, []string{"one:", "kubectl get a -o b;", "or the", "other:", "isthmus check -n a;", "else no", "more"}},
		{"see kubectl explain x", 9, []string{"see", "kubectl", "explain x"}},
		{"one: kubectl get a", 0, []string{"one: kubectl get a"}},
	} {
		if got := wrapFix(c.text, c.width); !slices.Equal(got, c.want) {
			t.Errorf("wrapFix(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Unix(1e9, 0)
	for d, want := range map[time.Duration]string{0: "0s", -time.Hour: "0s", 59 * time.Second: "59s", time.Minute: "1m", 90 * time.Minute: "1h", 47 * time.Hour: "47h", 72 * time.Hour: "3d"} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%v ago is %s, want %s", d, got, want)
		}
	}
	if got := ago(time.Time{}, now); got != "-" {
		t.Errorf("got %s", got)
	}
}
