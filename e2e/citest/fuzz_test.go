package citest

import (
	"testing"
)

// clock is how Go's fuzzer fails when its own time is up.
const clock = `printf 'fuzz: elapsed: 0s, gathering baseline coverage: 0/3 completed\nfuzz: elapsed: 10s, execs: 99 (9/sec), new interesting: 0 (total: 3)\n--- FAIL: FuzzText (10.04s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\texample.com/product\t10.049s\n'; exit 1`

// found is an input that fails.
const found = `printf 'fuzz: elapsed: 1s, execs: 99 (9/sec)\n--- FAIL: FuzzText (1.04s)\n    --- FAIL: FuzzText (0.00s)\n        text_test.go:9: wrong\n    Failing input written to testdata/fuzz/FuzzText/0123\nFAIL\nexit status 1\nFAIL\texample.com/product\t1.049s\n'; exit 1`

const passed = `printf 'fuzz: elapsed: 10s, execs: 99 (9/sec)\nPASS\nok  \texample.com/product\t10.049s\n'; exit 0`

// once is the first, and what comes then.
func once(first, then string) string {
	return `if [ ! -e "$STATE/asked" ]; then : >"$STATE/asked"; ` + first + "; fi\n" + then
}

// TestTheFuzzersClockIsNoFailure: it is tried again, and whoever counts failures in the log finds none.
func TestTheFuzzersClockIsNoFailure(t *testing.T) {
	for name, c := range map[string]struct {
		test string
		code int
		want []string
		not  []string
	}{
		"it passes":                     {passed, 0, []string{"fuzz: elapsed: 10s", "ok  \texample.com/product"}, []string{"FAIL", "once more"}},
		"the clock, and then it passes": {once(clock, passed), 0, []string{"fuzz: elapsed: 10s", "once more", "ok  \texample.com/product"}, []string{"FAIL", "deadline exceeded"}},
		"the clock twice":               {clock, 1, []string{"once more", "twice", "--- FAIL: FuzzText", "context deadline exceeded"}, nil},
		"an input":                      {found, 1, []string{"--- FAIL: FuzzText (1.04s)", "text_test.go:9: wrong", "testdata/fuzz/FuzzText/0123"}, []string{"once more"}},
		"the clock, and then an input":  {once(clock, found), 1, []string{"once more", "text_test.go:9: wrong"}, []string{"deadline exceeded"}},
		"a test that hits its own deadline": {`printf -- '--- FAIL: FuzzText (1.04s)\n    text_test.go:9: read\n    context deadline exceeded\nFAIL\n'; exit 1`, 1,
			[]string{"text_test.go:9: read"}, []string{"once more"}},
		"it does not compile": {`echo './text_test.go:3: undefined: x' >&2; exit 2`, 1, []string{"undefined: x"}, []string{"once more"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t, c.test)
			r.write("text_test.go", "package product\n\nfunc FuzzText(f *testing.F) {}\n", 0o644)
			said, code := r.run(nil, ".ci/fuzz", "10s")
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			has(t, said, append(c.want, "== fuzz . FuzzText for 10s"), c.not)
		})
	}
}
