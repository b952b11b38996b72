package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/bench/wan"
)

// role is what a process of the benchmark does.
type role string

const (
	roleClient role = "client"
	roleServer role = "server"
	roleApp    role = "app"  // the application behind a server that forwards
	roleLine   role = "line" // the delay line between client and server
)

// partConfig makes a part.
type partConfig struct {
	Role    role
	Carrier carrier.Config
	Addr    string        // what a client or a line connects to
	OneWay  time.Duration // of a line
	Heap    bool          // heap profiles will be wanted
}

// memory is what a part holds.
type memory struct {
	Heap       int64 // bytes of live Go objects
	Goroutines int
}

// part answers the parent's calls.
type part struct {
	app     *load.App
	client  *load.Client
	profile *os.File
}

// setup makes the part that the parent wants.
func setup(raw json.RawMessage) (string, proc.Handler, error) {
	var cfg partConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return "", nil, err
	}
	if cfg.Heap {
		runtime.MemProfileRate = 1024
	}
	p := &part{app: &load.App{}}
	if cfg.Role == roleClient {
		opener, err := carrier.Dial(cfg.Carrier, cfg.Addr)
		if err != nil {
			return "", nil, err
		}
		p.client = load.NewClient(opener)
		return "", p.handle, nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	handle := p.app.Handle
	if cfg.Carrier.Keep {
		handle = p.app.Keep
	}
	serve := map[role]func() error{
		roleServer: func() error { return carrier.Serve(l, cfg.Carrier, handle) },
		roleApp: func() error {
			return carrier.Serve(l, carrier.Config{Kind: carrier.Raw, ID: cfg.Carrier.ID}, p.app.Handle)
		},
		roleLine: func() error { return (&wan.Line{Target: cfg.Addr, OneWay: cfg.OneWay}).Serve(l) },
	}[cfg.Role]
	if serve == nil {
		return "", nil, fmt.Errorf("there is no role %q", cfg.Role)
	}
	go func() {
		fmt.Fprintf(os.Stderr, "isthmus bench: the %s ended: %v\n", cfg.Role, serve())
		os.Exit(1)
	}()
	return l.Addr().String(), p.handle, nil
}

func (p *part) handle(do string, arg json.RawMessage) (any, error) {
	switch do {
	case "sample":
		if p.client != nil {
			return p.client.Sample(), nil
		}
		return p.app.Sample(), nil
	case "start":
		var s load.Spec
		if err := json.Unmarshal(arg, &s); err != nil {
			return nil, err
		}
		return nil, p.client.Start(s)
	case "stop":
		return nil, p.client.Stop()
	case "memory":
		return held(), nil
	case "profile":
		var path string
		if err := json.Unmarshal(arg, &path); err != nil {
			return nil, err
		}
		return nil, p.record(path)
	case "heap":
		var path string
		if err := json.Unmarshal(arg, &path); err != nil {
			return nil, err
		}
		return nil, writeHeap(path)
	}
	return nil, fmt.Errorf("a part cannot %q", do)
}

// held measures what is reachable, and gives the rest back to the system first.
func held() memory {
	debug.FreeOSMemory() // collects, too
	runtime.GC()         // what finalizers have freed
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{Heap: int64(m.HeapAlloc), Goroutines: runtime.NumGoroutine()}
}

// record begins a CPU profile in path, or ends it when path is empty.
func (p *part) record(path string) error {
	if path == "" {
		pprof.StopCPUProfile()
		err := p.profile.Close()
		p.profile = nil
		return err
	}
	if p.profile != nil {
		return errors.New("a profile is being taken")
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	p.profile = f
	return pprof.StartCPUProfile(f)
}

// writeHeap puts a heap profile into path.
func writeHeap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}
