// Package proc runs parts of a benchmark as processes of their own, on cores of their own. A part is this same program, started
// again: Start in the parent, Serve in the child. They talk in lines of JSON over the child's standard input and output.
package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// environment is set in a child.
const environment = "ISTHMUS_BENCH_PART"

// closeGrace is how long a child has to end by itself.
const closeGrace = 2 * time.Second

// Placement says where a process runs.
type Placement struct {
	CPUs  []int // it may run on these only; empty: on all
	Procs int   // GOMAXPROCS; zero: as many as CPUs
}

// Child is a running part.
type Child struct {
	Addr string // where it listens, if it does

	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	mu  sync.Mutex // one call at a time
}

// request and response are the lines.
type request struct {
	Do  string
	Arg json.RawMessage `json:",omitempty"`
}

type response struct {
	Error string          `json:",omitempty"`
	Value json.RawMessage `json:",omitempty"`
}

// Start runs this program again as a part. config is what Serve's setup gets. The caller closes the Child; it dies with ctx and with this process.
func Start(ctx context.Context, where Placement, config any) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), environment+"=1")
	procs := where.Procs
	if procs == 0 {
		procs = len(where.CPUs)
	}
	if procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := StartOn(cmd, where.CPUs); err != nil {
		return nil, err
	}
	c := &Child{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.call(request{Do: "setup", Arg: raw}, &c.Addr); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// StartOn starts cmd so that it and all its threads run on cpus only; empty: anywhere. It ends with this process.
func StartOn(cmd *exec.Cmd, cpus []int) error {
	started := make(chan error)
	go func() {
		// A new process has the affinity of the thread that makes it. This thread ends with the goroutine, since it is not unlocked;
		// Pdeathsig follows the thread, so the thread stays until the process has gone.
		runtime.LockOSThread()
		if len(cpus) > 0 {
			var set unix.CPUSet
			for _, cpu := range cpus {
				set.Set(cpu)
			}
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				started <- fmt.Errorf("choose cores %v: %w", cpus, err)
				return
			}
		}
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
			return
		}
		pid := cmd.Process.Pid
		started <- nil
		var info unix.Siginfo
		for unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	return <-started
}

// PID is the process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Call asks the child to do something, waits for its answer, and stores it in value, which may be nil.
func (c *Child) Call(do string, arg, value any) error {
	var raw json.RawMessage
	if arg != nil {
		var err error
		if raw, err = json.Marshal(arg); err != nil {
			return err
		}
	}
	return c.call(request{Do: do, Arg: raw}, value)
}

func (c *Child) call(q request, value any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enc.Encode(q); err != nil {
		return fmt.Errorf("ask a part to %s: %w", q.Do, err)
	}
	var r response
	if err := c.dec.Decode(&r); err != nil {
		return fmt.Errorf("a part ended while asked to %s: %w", q.Do, err)
	}
	if r.Error != "" {
		return fmt.Errorf("%s: %s", q.Do, r.Error)
	}
	if value == nil || len(r.Value) == 0 {
		return nil
	}
	return json.Unmarshal(r.Value, value)
}

// Close ends the child and waits until it is gone.
func (c *Child) Close() error {
	c.in.Close()
	kill := time.AfterFunc(closeGrace, func() { _ = c.cmd.Process.Kill() }) // it has gone already: so be it
	defer kill.Stop()
	_ = c.cmd.Wait() // killed or not, it is gone
	return nil
}

// Inside reports whether this process is a part, so that it should call Serve and end.
func Inside() bool { return os.Getenv(environment) != "" }

// Handler does what the parent asks for.
type Handler func(do string, arg json.RawMessage) (any, error)

// Serve is the child's main loop. setup gets Start's config, and returns where the part listens and who answers calls.
func Serve(setup func(config json.RawMessage) (addr string, h Handler, err error)) error {
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var h Handler
	for {
		var q request
		if err := dec.Decode(&q); err != nil {
			return nil //nolint:nilerr // the parent closed the pipe: this is how a part ends
		}
		var value any
		var err error
		if h == nil {
			value, h, err = first(setup, q.Arg)
		} else {
			value, err = h(q.Do, q.Arg)
		}
		var r response
		if err == nil {
			r.Value, err = json.Marshal(value)
		}
		if err != nil {
			r = response{Error: err.Error()}
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

func first(setup func(json.RawMessage) (string, Handler, error), config json.RawMessage) (any, Handler, error) {
	addr, h, err := setup(config)
	return addr, h, err
}
