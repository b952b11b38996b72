package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// missingCommand is what the tests' script asks.
const missingCommand = "missing"

const help = `demo                             tells the story in a world of its own, which ends with it
demo up                          starts that world and leaves it running
demo exec NAMESPACE/APP COMMAND  runs a command in a pod of it
demo down                        ends it
`

func main() {
	command := strings.Join(os.Args[1:], " ")
	plays := map[string]func(context.Context, io.Writer) error{"": tell, serveCommand: serve, missingCommand: missing}
	play := plays[command]
	switch {
	case world.IsReexec():
	case command == "" && fromPATH():
		fmt.Print(help)
		return
	case command == "help" || command == "-h" || command == "--help":
		fmt.Print(help)
		return
	case command == "up": // this and down work on the host
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		err := up(ctx, os.Stdout)
		stop()
		os.Exit(finish(err))
	case command == "down":
		os.Exit(finish(down(os.Stdout)))
	case len(os.Args) > 1 && os.Args[1] == execCommand:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		code, err := inPod(ctx, os.Args[2:])
		stop()
		if err != nil {
			code = finish(err)
		}
		os.Exit(code)
	case play == nil:
		fmt.Fprintf(os.Stderr, "demo: %q is not known\n%s", command, help)
		os.Exit(2)
	}
	world.Enter(story.Funcs())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := play(ctx, os.Stdout)
	stop()
	os.Exit(finish(err))
}

// fromPATH says whether this is the program that up has put into PATH: who calls it there has a world that runs, and wants no second one.
func fromPATH() bool {
	dir, err := stateDir()
	if err != nil {
		return false
	}
	up, err := os.Stat(filepath.Join(dir, programFile))
	if err != nil {
		return false
	}
	this, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(up, this)
}

// finish says an error, and is the exit code.
func finish(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// tell plays the story once.
func tell(ctx context.Context, out io.Writer) (err error) {
	w, err := story.Start(ctx, out)
	if err != nil {
		return err
	}
	began := time.Now()
	defer func() {
		if stopErr := w.Stop(); err == nil {
			err = stopErr
		}
	}()
	fmt.Fprintf(out, "the scene is set after %.1f s\n", w.Took.Seconds())
	if err := w.Tell(ctx, out); err != nil {
		if ctx.Err() != nil {
			return err // somebody has ended it
		}
		w.Keep()
		return fmt.Errorf("%w\nlogs are in %s", err, w.Dir)
	}
	fmt.Fprintf(out, "\nTold in %.0f s. Try it yourself: make demo-up leaves this world running, make demo-down ends it.\n", time.Since(began).Seconds())
	return leftOut(out, w.Programs)
}

// missing says what tests must do without on this machine, a line each. That it can say so shows that there can be worlds.
func missing(ctx context.Context, out io.Writer) error {
	set, err := programs.Ensure(ctx, []programs.Name{programs.Envoy}, os.Stderr)
	if err != nil {
		return err
	}
	return leftOut(out, set)
}

// leftOut says what this machine cannot do.
func leftOut(out io.Writer, set programs.Set) error {
	for _, m := range set.Missing() {
		fmt.Fprintf(out, "Left out here: %s. %s\n", m.Name, m.Reason)
	}
	err := node.CheckNFTables()
	if errors.Is(err, node.ErrNoNFTables) {
		fmt.Fprintf(out, "Left out here: nftables, and so refusing plaintext. %v\n", err)
		return nil
	}
	return err
}
