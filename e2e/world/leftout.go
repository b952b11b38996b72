package world

import (
	"fmt"
	"os"
)

// LeftOutEnv names a file that takes what tests must do without on this machine, a line each: make test says it in its last lines. go test shows nobody what a
// test that passes, or skips, has to say.
const LeftOutEnv = "ISTHMUS_LEFT_OUT"

// Skipper is the part of a testing.TB that LeftOut needs.
type Skipper interface {
	Helper()
	Log(args ...any)
	Skip(args ...any)
}

// LeftOut skips a test, or a part of one, that needs what this machine lacks, in CI too, and says so in the file that LeftOutEnv names. what says what is lacking, what that
// leaves out and what to do, in a line that is the same for all tests that need it. What CI must have is not for LeftOut: such a test fails with CI=true.
func LeftOut(t Skipper, what string) {
	t.Helper()
	if path := os.Getenv(LeftOutEnv); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, what)
			f.Close()
		}
		if err != nil {
			t.Log("this is told nobody else:", err)
		}
	}
	t.Skip(what)
}
