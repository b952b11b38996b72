package world

import (
	"fmt"
	"os"
	"strings"
)

// UnjudgedEnv names a file that takes promises which were not judged: a test that passes shows its log to nobody. A line has the folder of the test's package,
// the test's name and what was seen, with tabs between them, so that it can be run again alone.
const UnjudgedEnv = "ISTHMUS_UNJUDGED"

// BesideEnv is set where tests run beside others, which are to have what they judge measured again alone (see UnjudgedEnv): what they miss says nothing then,
// whatever the load was in the last minute.
const BesideEnv = "ISTHMUS_BESIDE"

// Test is the part of a testing.TB that a judgement needs.
type Test interface {
	Name() string
	Log(args ...any)
}

// Judge says whether a promise of so many seconds that was broken counts: it does when the machine is Quiet, and nobody has said that others run beside. Else that is said in t's log, and in the file
// that UnjudgedEnv names. seen begins with the promise.
func Judge(t Test, seen string) bool { return judge(t, seen, Quiet() && os.Getenv(BesideEnv) == "") }

func judge(t Test, seen string, quiet bool) bool {
	if quiet {
		return true
	}
	t.Log("not judged, as the machine is busy: " + seen)
	path := os.Getenv(UnjudgedEnv)
	if path == "" {
		return false
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		var dir string
		if dir, err = os.Getwd(); err == nil { // go test runs a package's tests in its folder
			test, _, _ := strings.Cut(t.Name(), "/")
			_, err = fmt.Fprintf(f, "%s\t%s\t%s\n", dir, test, seen)
		}
		f.Close()
	}
	if err != nil {
		t.Log("this is told nobody else:", err)
	}
	return false
}
