package world

import (
	"fmt"
	"os"
)

// UnjudgedEnv names a file that takes promises which were not judged, a line each: a test that passes shows its log to nobody.
const UnjudgedEnv = "ISTHMUS_UNJUDGED"

// Judge says whether a promise of so many seconds that was broken counts: it does when the machine is Quiet. Else that is said in t's log, and in the file
// that UnjudgedEnv names. seen begins with the promise.
func Judge(t interface{ Log(args ...any) }, seen string) bool { return judge(t, seen, Quiet()) }

func judge(t interface{ Log(args ...any) }, seen string, quiet bool) bool {
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
		_, err = fmt.Fprintln(f, seen)
		f.Close()
	}
	if err != nil {
		t.Log("this is told nobody else:", err)
	}
	return false
}
