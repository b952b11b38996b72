package citest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unjudged is a test of the stories whose promise nobody could judge. Of all runs of it, alone says what comes of those that it has to itself.
func unjudged(alone string) string {
	return `case "$*" in
*"-run ^TestReady\$ ."*) echo x >>"$STATE/alone"
	[ -z "${ISTHMUS_BESIDE:-}" ] || exit 1
` + alone + ` ;;
*/e2e) [ "$ISTHMUS_BESIDE" = true ] || exit 1
	printf '%s\tTestReady\tready in 5s: it took 6s\n' "$PWD" >>"$ISTHMUS_UNJUDGED" # the stories
	printf 'ok  \texample.com/product/e2e\t1.2s\n' ;;
*) printf 'ok  \texample.com/product\t1.2s\n' ;;
esac`
}

const (
	noted  = `	printf '%s\tTestReady\tready in 5s: it took 7s\n' "$PWD" >>"$ISTHMUS_UNJUDGED"; printf 'ok  \texample.com/product\t1.2s\n'`
	missed = `	printf -- '--- FAIL: TestReady (7.00s)\n    ready_test.go:9: ready in 5s: it took 7s\nFAIL\n'; exit 1`
	kept   = `	printf -- '--- PASS: TestReady (4.00s)\nok  \texample.com/product\t1.2s\n'`
	gone   = `	printf 'testing: warning: no tests to run\nPASS\nok  \texample.com/product\t1.2s\n'`
	skips  = `	printf -- '--- SKIP: TestReady (0.00s)\nPASS\nok  \texample.com/product\t1.2s\n'`
	second = `	[ $(wc -l <"$STATE/alone") -gt 1 ] || { printf -- '--- FAIL: TestReady (7.00s)\nFAIL\n'; exit 1; }
` + kept
)

// TestPromisesAreJudgedAlone: what nobody could judge beside others is measured again; it counts in CI, and is said elsewhere.
func TestPromisesAreJudgedAlone(t *testing.T) {
	for name, c := range map[string]struct {
		alone  string
		ci     bool
		code   int
		said   bool // that it was not seen to be kept
		judged int  // how often it was measured alone
	}{
		"kept":                                  {kept, true, 0, false, 1},
		"kept at second sight":                  {second, true, 0, false, 2},
		"missed, in CI":                         {missed, true, 1, true, 3},
		"missed elsewhere":                      {missed, false, 0, true, 3},
		"it skips, alone":                       {skips, true, 1, true, 3},
		"it is not there, alone":                {gone, true, 1, true, 3},
		"nobody can judge it, in CI":            {noted, true, 1, true, 3},
		"nobody can judge it, and it is not CI": {noted, false, 0, true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t, unjudged(c.alone))
			ci := "CI="
			if c.ci {
				ci = "CI=true"
			}
			said, code := r.run([]string{ci}, ".ci/test")
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			_, end, _ := strings.Cut(said, "once more, one by one")
			if is := strings.Contains(end, "TestReady: ready in 5s: it took 6s"); is != c.said {
				t.Errorf("it is said: %v, want %v", is, c.said)
			}
			if n := strings.Count(end, "TestReady, alone"); n != c.judged {
				t.Errorf("it was measured %d times, want %d", n, c.judged)
			}
			if c.code == 0 && c.ci && strings.Contains(said, "FAIL") {
				t.Error("whoever counts failures in the log finds some")
			}
		})
	}
}

// TestWhatFailedIsSaidAtTheEnd, in short: a log of thousands of lines tells nobody.
func TestWhatFailedIsSaidAtTheEnd(t *testing.T) {
	r := newRepository(t, `
printf 'ok  \texample.com/product/good\t1.2s\n'
case "$PWD" in */e2e) exit 0 ;; esac
seq 100 | sed 's/^/line /'
printf 'panic: nobody is here [recovered]\n'
printf -- '--- FAIL: TestWhole (3.00s)\n    --- FAIL: TestWhole/part (2.00s)\n        whole_test.go:9: it is broken\nFAIL\nFAIL\texample.com/product/bad\t3.1s\n'
printf 'ok  \texample.com/product/sound\t1.2s\n'
printf -- '# example.com/product/worse [example.com/product/worse.test]\n./worse_test.go:3:9: undefined: x\nFAIL\texample.com/product/worse [build failed]\n?   \texample.com/product/none\t[no test files]\nFAIL\n'
exit 1`)
	said, code := r.run([]string{"CI=true"}, ".ci/test")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	_, end, ok := strings.Cut(said, "In short:")
	if !ok {
		t.Fatal("there is no summary")
	}
	has(t, end, []string{
		"  - example.com/product/bad: TestWhole, TestWhole/part\n      panic: nobody is here [recovered]\n", "line 93\n", "whole_test.go:9: it is broken\n",
		"  - example.com/product/worse [build failed]\n", "undefined: x\n",
	}, []string{"line 92\n", "product/good", "product/sound", "product/none"})
	if n := strings.Count(end, "\n"); n > 40 {
		t.Errorf("it has %d lines", n)
	}
}

// TestNothingFailed: then nothing of it is said.
func TestNothingFailed(t *testing.T) {
	r := newRepository(t, `printf 'ok  \texample.com/product\t1.2s\n'`)
	said, code := r.run([]string{"CI=true"}, ".ci/test")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	has(t, said, []string{"stories on a real etcd", "done"}, []string{"In short", "failed", "promised", "FAIL"})
}

// TestPackagesThatCannotBeListedAreNoSuccess: nobody knows what was not tested then.
func TestPackagesThatCannotBeListedAreNoSuccess(t *testing.T) {
	r := newRepository(t, `printf 'ok  \texample.com/product\t1.2s\n'`)
	text, err := os.ReadFile(filepath.Join(r.dir, "tools/go"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("tools/played", string(text), 0o755)
	r.write("tools/go", "#!/bin/sh\n[ \"$*\" != 'list ./...' ] || exit 1\nexec \"${0%/*}/played\" \"$@\"\n", 0o755)
	if _, code := r.run(nil, ".ci/test"); code == 0 {
		t.Error("exit code 0")
	}
}

// TestWhoIsKilledKeepsNobodyFromSpeaking: a package's output is said although whoever spoke before did not come to its end.
func TestWhoIsKilledKeepsNobodyFromSpeaking(t *testing.T) {
	r := newRepository(t, `[ -z "${dir:-}" ] || mkdir "$dir/lock"
printf 'ok  \texample.com/product\t1.2s\n'`)
	said, code := r.run([]string{"CI=true"}, ".ci/test")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if n := strings.Count(said, "ok  \t"); n != 2 {
		t.Errorf("%d packages spoke, want 2", n)
	}
}
