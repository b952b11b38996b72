package programs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// tailLines is how much of a command's output an error shows.
const tailLines = 12

// command is a program that needs the host's network. It runs outside when this process is inside a world.
type command struct {
	argv []string
	env  []string // on top of this process's own
	dir  string
}

// run runs c, gives line each line of its output, and returns stdout. Its errors end with the tail of the output.
func (c command) run(ctx context.Context, line func(string)) (string, error) {
	path, err := exec.LookPath(c.argv[0]) // here: the process outside may have been started with another PATH
	if err != nil {
		return "", explain(err, "")
	}
	c.argv = append([]string{path}, c.argv[1:]...)
	outR, outW, err := os.Pipe()
	if err != nil {
		return "", err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return "", err
	}
	var stdout strings.Builder
	var tail []string
	var wg sync.WaitGroup
	wg.Go(func() {
		defer outR.Close()
		_, _ = io.Copy(&stdout, outR) // a short read shows in what is parsed
	})
	wg.Go(func() {
		defer errR.Close()
		in := bufio.NewScanner(errR)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			line(in.Text())
			if tail = append(tail, in.Text()); len(tail) > tailLines {
				tail = tail[1:]
			}
		}
		_, _ = io.Copy(io.Discard, errR) // after a line that is too long
	})
	err = c.start(ctx, outW, errW)
	outW.Close()
	errW.Close()
	wg.Wait()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", explain(fmt.Errorf("run %s: %w", strings.Join(c.argv, " "), err), strings.Join(tail, "\n"))
	}
	return stdout.String(), nil
}

// start runs the command to its end.
func (c command) start(ctx context.Context, stdout, stderr *os.File) error {
	env := append(os.Environ(), c.env...)
	if world.Inside() {
		return world.HostCommand{Argv: c.argv, Env: env, Dir: c.dir, Stdout: stdout, Stderr: stderr}.Run(ctx)
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, c.dir, stdout, stderr
	defer world.Interruptible(ctx, cmd)()
	return cmd.Run()
}

// report tells of something that takes long.
type report struct {
	w     io.Writer
	what  string
	start time.Time
	stop  chan struct{}
	done  chan struct{}

	mu    sync.Mutex // guards the fields below
	now   string
	count int
}

// begin starts to tell of what, every interval.
func begin(w io.Writer, what string, interval time.Duration) *report {
	r := &report{w: w, what: what, start: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	fmt.Fprintf(w, "%s\n", what)
	go r.loop(interval)
	return r
}

// loop writes lines until end is called.
func (r *report) loop(interval time.Duration) {
	defer close(r.done)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.mu.Lock()
			fmt.Fprintf(r.w, "%s: %s", r.what, elapsed(time.Since(r.start)))
			if r.now != "" {
				fmt.Fprintf(r.w, ", step %d: %s", r.count, r.now)
			}
			fmt.Fprintln(r.w)
			r.mu.Unlock()
		}
	}
}

// line takes one line of the command's output as what it does now.
func (r *report) line(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = strings.TrimPrefix(s, "go: ")
	r.count++
}

// end stops the lines, and tells of success.
func (r *report) end(err error) {
	close(r.stop)
	<-r.done
	if err == nil {
		fmt.Fprintf(r.w, "%s: done after %s\n", r.what, elapsed(time.Since(r.start)))
	}
}

func elapsed(d time.Duration) string { return d.Round(time.Second).String() }
