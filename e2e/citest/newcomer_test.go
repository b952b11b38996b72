package citest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sentence wants that said is one sentence of ours: what, where, and what to do.
func sentence(t *testing.T, said string, want ...string) {
	t.Helper()
	if !strings.HasPrefix(said, "isthmus: ") || strings.Count(said, "\n") != 1 {
		t.Errorf("it says %q; want one line of ours", said)
	}
	has(t, said, want, nil)
}

// entries are the names in a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestWhatIsMissingIsSaidBeforeAnythingIsBuilt: each way that a machine is not ready ends at once, with what to do, and leaves nothing.
func TestWhatIsMissingIsSaidBeforeAnythingIsBuilt(t *testing.T) {
	for name, c := range map[string]struct {
		env  func(dir string) []string
		want []string
	}{
		"no Go":             {func(dir string) []string { return []string{"PATH=" + dir} }, []string{"no go command in PATH", "Install Go 1.26 or newer"}},
		"an old Go":         {func(string) []string { return []string{"PLAYED_GOVERSION=go1.25.9"} }, []string{"this is go1.25.9", "Go 1.26 or newer is needed"}},
		"no home":           {func(string) []string { return []string{"HOME=", "GOCACHE=", "XDG_CACHE_HOME="} }, []string{"HOME is not set", "set HOME to a folder"}},
		"no cache":          {func(string) []string { return []string{"PLAYED_GOCACHE=off"} }, []string{"GOCACHE is off", "unset GOCACHE"}},
		"no temporary":      {func(dir string) []string { return []string{"TMPDIR=" + dir + "/none"} }, []string{"TMPDIR is ", "/none, and there is no such folder", "unset TMPDIR"}},
		"an unusable cache": {func(dir string) []string { return []string{"PLAYED_GOCACHE=" + dir + "/file/go-build"} }, []string{"/file/go-build (GOCACHE): Not a directory", "Set HOME, or GOCACHE"}},
		"unusable modules":  {func(dir string) []string { return []string{"PLAYED_GOMODCACHE=" + dir + "/file/mod"} }, []string{"/file/mod (GOMODCACHE): Not a directory", "Set HOME, or GOMODCACHE"}},
	} {
		for _, script := range []string{"demo", "test", "need"} {
			t.Run(name+", "+script, func(t *testing.T) {
				r := newRepository(t, "exit 99")
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				env := append([]string{"HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C"}, c.env(dir)...)
				called := []string{"dirname", "sh"} // before anything else
				if name == "no Go" {
					for _, program := range called {
						link(t, dir, program)
					}
				}
				said, code := r.run(env, ".ci/"+script, map[string]string{"need": "go"}[script])
				if code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
				sentence(t, said, c.want...)
				for _, program := range called {
					_ = os.Remove(filepath.Join(dir, program))
				}
				if left := entries(t, dir); len(left) != 1 {
					t.Errorf("left in home and TMPDIR: %q", left)
				}
			})
		}
	}
}

// link makes a program of this machine available in a folder.
func link(t *testing.T, dir, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		err = os.Symlink(path, filepath.Join(dir, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAFullDiskIsSaidBeforeAnythingIsBuilt, on disks of that size.
func TestAFullDiskIsSaidBeforeAnythingIsBuilt(t *testing.T) {
	for name, c := range map[string]struct {
		disk string // options of a tmpfs
		env  string // what leads to it
		args []string
		want []string
	}{
		"GOCACHE":                            {"size=12m", "PLAYED_GOCACHE", []string{"go"}, []string{"the disk is full", "(GOCACHE) has room for 12 MB, and 100 MB are needed. Make room"}},
		"GOMODCACHE":                         {"size=12m", "PLAYED_GOMODCACHE", []string{"go"}, []string{"(GOMODCACHE) has room for 12 MB", "set GOMODCACHE to a folder on another disk"}},
		"TMPDIR":                             {"size=12m", "TMPDIR", []string{"go"}, []string{"(TMPDIR) has room for 12 MB", "set TMPDIR to a folder on another disk"}},
		"no more files":                      {"size=500m,nr_inodes=1", "TMPDIR", []string{"go"}, []string{"(TMPDIR): No space left on device"}},
		"read-only":                          {"ro", "PLAYED_GOCACHE", []string{"go"}, []string{"(GOCACHE): Read-only file system", "Set HOME, or GOCACHE"}},
		"enough for all but a mesh":          {"size=1000m", "PLAYED_GOCACHE", []string{"go"}, nil},
		"not enough for a mesh's first time": {"size=1000m", "PLAYED_GOCACHE", []string{"go", "mesh"}, []string{"has room for 1000 MB, and 4000 MB are needed, this once"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t, "exit 99")
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `mount -t tmpfs -o "$1" none "$2" && shift 2 && exec sh "$@"`, "sh", c.disk, dir, filepath.Join(r.dir, ".ci/need")}, c.args...)...)
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "tools")+":"+os.Getenv("PATH"), "LC_ALL=C", "HOME="+r.dir, "XDG_CACHE_HOME=", c.env+"="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || strings.Contains(string(out), "mount:") {
				if os.Getenv("CI") == "true" {
					t.Fatalf("no disk can be made here: %v: %s", err, out)
				}
				t.Skipf("no disk can be made here: %v: %s", err, out)
			}
			if len(c.want) == 0 {
				if err != nil || len(out) > 0 {
					t.Errorf("it says %q, %v", out, err)
				}
				return
			}
			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			sentence(t, string(out), c.want...)
		})
	}
}

// TestAFailedBuildSaysWhatToDo: one line of what Go says, and the remedy; all that the compiler says where there is none.
func TestAFailedBuildSaysWhatToDo(t *testing.T) {
	const noise = "go: downloading example.com/a v1.0.0\nexample.com/a/b\n"
	for name, c := range map[string]struct{ log, line, want string }{
		"full disk":         {"x.go:1:2: write /x/a.zip: no space left on device\nx.go:2:2: write /x/b.zip: no space left on device\n", "x.go:1:2: write /x/a.zip", "the disk is full"},
		"nobody listens":    {"x.go:1:2: Get \"http://p/a\": dial tcp 127.0.0.1:9: connect: connection refused\nx.go:2:2: Get \"http://p/b\": connection refused\n", "x.go:1:2", "the network is needed"},
		"no route":          {"x.go:1:2: dial udp 10.0.0.1:53: connect: network is unreachable\n", "x.go:1:2", "HTTPS_PROXY and GOPROXY"},
		"somebody between":  {"verifying example.com/a@v1.0.0: checksum mismatch\n\tdownloaded: h1:a\n", "checksum mismatch", "do not go on"},
		"out of memory":     {"example.com/a: compile: signal: killed\n", "signal: killed", "it needs about 3 GB"},
		"not writable":      {"go: mkdir /x: permission denied\n", "permission denied", "cannot be written to"},
		"it does not build": {"# example.com/a\n./x.go:3:9: undefined: x\n./x.go:4:9: undefined: y\n", "undefined: x\n./x.go:4:9: undefined: y", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t, "exit 99")
			dir := t.TempDir()
			said, code := r.run([]string{"TMPDIR=" + dir, "LOG=" + noise + c.log}, ".ci/compile", "building it", "sh", "-c", `printf %s "$LOG"; : >"$GOTMPDIR/left"; exit 3`)
			if code != 3 {
				t.Errorf("exit code %d, want the command's", code)
			}
			has(t, said, []string{c.line, c.want}, []string{"downloading", "example.com/a/b"})
			if c.want != "" && (strings.Count(said, "\n") != 2 || !strings.Contains(said, "\nisthmus: building it failed: ")) {
				t.Errorf("it says %q; want a line of Go's, and one of ours", said)
			}
			if left := entries(t, dir); len(left) > 0 {
				t.Errorf("left in TMPDIR: %q", left)
			}
		})
	}
}

// TestGoSaysWhatTheRemediesLookFor: the texts are Go's own, and change with it.
func TestGoSaysWhatTheRemediesLookFor(t *testing.T) {
	compile, err := filepath.Abs("../../.ci/compile")
	if err != nil {
		t.Fatal(err)
	}
	const needs = "module example.org/product\n\ngo 1.26\n\nrequire example.org/none v1.0.0\n"
	for name, c := range map[string]struct {
		mod, env string
		want     string
	}{
		"offline by choice": {needs, "GOPROXY=off", "the network is needed"},
		"nobody listens":    {needs, "GOPROXY=http://127.0.0.1:1", "the network is needed"},
		"newer than Go":     {"module example.org/product\n\ngo 1.99\n", "GOTOOLCHAIN=local", "this Go is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, temp := t.TempDir(), t.TempDir()
			for file, text := range map[string]string{"go.mod": c.mod, "main.go": "package main\n\nimport _ \"example.org/none\"\n\nfunc main() {}\n"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "sh", compile, "building it", "go", "build", "-mod=mod", "-o", os.DevNull, ".")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+temp, "GOMODCACHE="+dir+"/mod", "GOFLAGS=", "GOSUMDB=off", c.env)
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("%v: %s", cmd.ProcessState, out)
			}
			has(t, string(out), []string{c.want}, nil)
			if left := entries(t, temp); len(left) > 0 {
				t.Errorf("left in TMPDIR: %q", left)
			}
		})
	}
}

// TestABuildThatIsEndedLeavesNothing, by whatever signal: Go clears what it has begun on one of them only.
func TestABuildThatIsEndedLeavesNothing(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "terminated": syscall.SIGTERM, "its terminal is gone": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t, "exit 99")
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(r.dir, ".ci/compile"), "building it",
				"env", "--default-signal=INT", "sh", "-c", `: >"$GOTMPDIR/begun"; trap 'exit 1' INT TERM HUP; while :; do /bin/sleep 0.05; done`)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // all get the signal, as from a terminal
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if begun, err := filepath.Glob(filepath.Join(dir, "*", "begun")); err == nil && len(begun) > 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatal("it has not begun")
				}
			}
			if err := syscall.Kill(-cmd.Process.Pid, signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d, want 130", code)
			}
			if left := entries(t, dir); len(left) > 0 {
				t.Errorf("left in TMPDIR: %q", left)
			}
		})
	}
}

// TestDownNeedsNoBuild: what runs can be ended on a full disk, and without Go.
func TestDownNeedsNoBuild(t *testing.T) {
	r := newRepository(t, "exit 99")
	r.write("bin/demo", "#!/bin/sh\necho \"ended by $0 $*\"\n", 0o755)
	said, code := r.run([]string{"PLAYED_GOVERSION=go1.2"}, ".ci/demo", "down")
	if code != 0 || !regexp.MustCompile(`ended by .*bin/demo down\n`).MatchString(said) {
		t.Errorf("exit code %d: %q", code, said)
	}
	if said, code = r.run([]string{"PLAYED_GOVERSION=go1.2"}, ".ci/demo", "up"); code != 1 {
		t.Errorf("up: exit code %d: %q", code, said)
	}
}
