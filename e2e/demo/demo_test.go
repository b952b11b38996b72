package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// exe is the demo's program.
var exe string

func TestMain(m *testing.M) { os.Exit(withProgram(m)) }

// withProgram builds the program once for all tests.
func withProgram(m *testing.M) int {
	dir, err := os.MkdirTemp("", "demobuild")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if exe, err = programs.Demo(context.Background(), dir, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// place is where a test's demo keeps its state and its temporary files.
type place struct {
	t     *testing.T
	temp  string
	state string
}

// stateName is the folder of the state in a place.
const stateName = "state"

// newPlace makes folders of the test's own, and checks that nothing stays in them.
func newPlace(t *testing.T) *place {
	t.Helper()
	temp, err := os.MkdirTemp("", "demotest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(temp)
		if err != nil {
			t.Error(err)
		}
		for _, e := range left {
			if e.Name() != stateName {
				t.Errorf("%s is left in the temporary folder", e.Name())
			}
		}
		if left, err = os.ReadDir(filepath.Join(temp, stateName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range left {
			if e.Name() != lockName {
				t.Errorf("%s is left of the state", e.Name())
			}
		}
		if !t.Failed() {
			os.RemoveAll(temp)
		}
	})
	return &place{t, temp, filepath.Join(temp, stateName)}
}

// demo is a command of the demo.
func (p *place) demo(args ...string) *exec.Cmd { return p.command(exe, args...) }

// command is a program that is asked to end with the test.
func (p *place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+p.temp, stateEnv+"="+p.state)
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return string(out)
}

var (
	numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)*`)
	status  = regexp.MustCompile(`: [1-5][0-9][0-9]\.?$`)
)

// shape is a line without what differs from run to run: numbers, but for the status that a request got.
func shape(line string) string {
	line = strings.TrimRight(line, "\n")
	end := status.FindString(line)
	line = numbers.ReplaceAllString(strings.TrimSuffix(line, end), "N") + end
	return strings.Join(strings.Fields(line), " ")
}

// transcript is the demo's story in README.
func transcript(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```text\n1. ")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("README has no block of text that begins with scene 1")
	}
	return strings.Split(strings.TrimSpace("1. "+block), "\n")
}

// TestTranscript tells the story, and holds README's transcript against it.
func TestTranscript(t *testing.T) {
	p := newPlace(t)
	began := time.Now()
	out := run(t, p.demo())
	took := time.Since(began)
	t.Logf("told in %v\n%s", took.Round(time.Second), out)
	const promise = 40 * time.Second
	if took > promise && world.Quiet() { // something was built, or somebody came between
		began = time.Now()
		out = run(t, p.demo())
		took = time.Since(began)
	}
	seen := fmt.Sprintf("the demo, where nothing has to be built, takes %v at most: it took %v", promise, took.Round(time.Second))
	if !strings.Contains(out, "(once)") && took > promise && world.Judge(t, seen) {
		t.Error(seen)
	}
	if strings.Contains(out, "Left out here") {
		return // README tells of a machine that has everything
	}
	var told []string
	for line := range strings.Lines(out) {
		if s := shape(line); s != "" {
			told = append(told, s)
		}
	}
	at, skipped := -1, true // of the line before, and whether it leaves some out
	for _, line := range transcript(t) {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("a line has %d columns, and 100 fit: %q", n, line)
		}
		s := shape(line)
		if s == "" {
			continue
		}
		if s == "..." {
			skipped = true
			continue
		}
		i := slices.Index(told[at+1:], s)
		switch {
		case i < 0:
			t.Errorf("README's transcript has a line that the demo no longer says there: %q", line)
			continue
		case i > 0 && !skipped:
			t.Errorf("README's transcript leaves out, and does not say so: %q", told[at+1:at+1+i])
		}
		at, skipped = at+1+i, false
	}
}

// get asks for an order through a gateway whose port up has printed in a curl command.
func get(ctx context.Context, curl string) (int, error) {
	f := strings.Fields(curl) // curl -w FORMAT --cacert FILE --resolve HOST:PORT:IP URL
	if len(f) != 8 {
		return 0, errors.New("not a curl command: " + curl)
	}
	roots, err := os.ReadFile(f[4])
	if err != nil {
		return 0, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	parts := strings.Split(f[6], ":")
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(parts[2], parts[1]))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f[7], nil)
	if err != nil {
		return 0, err
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// after is what follows a mark on a line of text.
func after(t *testing.T, text, mark string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, mark); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatalf("%q is not said:\n%s", mark, text)
	return ""
}

// members counts the live processes of a session.
func members(t *testing.T, session int) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(f) > 3 && f[3] == strconv.Itoa(session) && f[0] != "Z" {
			n++
		}
	}
	return n
}

// TestItTellsNoSecondStoryFromPATH: the program that up has put into PATH says how it is called, and starts no world beside the one that runs.
func TestItTellsNoSecondStoryFromPATH(t *testing.T) {
	p := newPlace(t)
	if err := os.MkdirAll(p.state, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.state) })
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	inPATH := filepath.Join(p.state, programFile)
	if err := os.WriteFile(inPATH, text, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, inPATH)
	cmd.Env = p.demo().Env
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != help {
		t.Errorf("it says %q, %v", out, err)
	}
}

// TestUpAndDown leaves a world running, uses it as it says, and ends it; once more after its process was killed.
func TestUpAndDown(t *testing.T) {
	p := newPlace(t)
	dir := p.state
	down := func() string { return run(t, p.demo("down")) }
	t.Cleanup(func() {
		cmd := exec.CommandContext(context.Background(), exe, "down") // when something below has failed
		cmd.Env = p.demo().Env
		_ = cmd.Run()
	})
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pidFile, "of-somebody-else"} { // an empty pid file is what a power cut leaves
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := down(); !strings.Contains(got, "no world is running") {
		t.Errorf("down without a world says %q", got)
	}
	if out, err := p.demo("exec", "edge/gateway", "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "no world is running") {
		t.Errorf("exec without a world: %v, %q", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "of-somebody-else")); err != nil {
		t.Errorf("down takes what is not its own: %v", err)
	}

	text := run(t, p.demo("up"))
	t.Log(text)
	if again := run(t, p.demo("up")); !strings.Contains(again, "running already") || !strings.Contains(again, after(t, text, "  export ")) {
		t.Errorf("a second up says %q", again)
	}
	if status, err := get(t.Context(), "curl "+after(t, text, "  curl ")); status != 200 || err != nil {
		t.Errorf("the gateway outside the mesh: %d, %v; want 200", status, err)
	}
	native := text[strings.Index(text, "embeds hbone"):]
	if status, err := get(t.Context(), "curl "+after(t, native, "  curl ")); status != 200 || err != nil {
		t.Errorf("the native gateway: %d, %v; want 200", status, err)
	}
	p.useAsSaid(after(t, text, "  export "))
	p.ofOnesOwn(after(t, text, "  export "), "curl "+after(t, native, "  curl "))
	pid, err := readPID(filepath.Join(dir, pidFile))
	if err != nil || pid == 0 {
		t.Fatal(pid, err)
	}
	if n := members(t, pid); n < 2 {
		t.Fatalf("the test sees %d of the world's processes", n)
	}
	if got := down(); !strings.Contains(got, "the world is gone") {
		t.Errorf("down says %q", got)
	}
	gone(t, pid)

	run(t, p.demo("up"))
	if pid, err = readPID(filepath.Join(dir, pidFile)); err != nil || pid == 0 {
		t.Fatal(pid, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	down()
	gone(t, pid)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != lockName {
		t.Errorf("left of the state are %v, %v", left, err)
	}
}

// useAsSaid has a shell do what up proposes, after its line with export.
func (p *place) useAsSaid(export string) {
	t := p.t
	t.Helper()
	for _, c := range []struct{ command, want string }{
		{"kubectl get ambientedges -A", "No resources found"},
		{"isthmus status -A", "no AmbientEdge in all namespaces"},
		{"istioctl version --remote=false", "version"},
		{"demo exec edge/native-gateway isthmus dial orders.shop.svc.cluster.local:80 --http /orders/7", "we are    spiffe://cluster.local/ns/edge/sa/native-gateway"},
		{"demo exec edge/native-gateway isthmus dial orders.shop.svc.cluster.local:80 --http /orders/7", `"path":"/orders/7"`},
		{"echo from here | demo exec edge/impostor -- sh -c 'cat; cat /etc/hostname'", "from here\nimpostor\n"},
		{"demo exec edge/impostor sh -c 'exit 9' || echo it ended with $?", "it ended with 9"},
		{"kubectl apply -f ../story/manifests/ingress.yaml", "gateway.gateway.networking.k8s.io/ingress created"},
		{"isthmus observe", "edge/ingress  istio"},
		{"isthmus inspect edge/ingress 2>&1 || true", "Gateway edge/ingress, istio: "},
		{"demo exec edge/gateway isthmus version", "isthmus"},
		{"demo exec shop/orders isthmus version", "isthmus"},
		{"demo exec edge/nobody true || echo it ended with $?", "no pod of edge/nobody"},
		{"demo exec edge || echo it ended with $?", "it ended with 2"},
		{"kubectl exec -n edge deployment/gateway -- true || echo it ended with $?", "take demo exec NAMESPACE/NAME COMMAND"},
	} {
		if got := run(t, p.command("sh", "-c", "export "+export+"\n"+c.command)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
}

// ofOnesOwn has a program of this machine take the place of the gateway that embeds hbone, by the path that its image is: here this demo's program, told to
// be that gateway. curl asks it.
func (p *place) ofOnesOwn(export, curl string) {
	t := p.t
	t.Helper()
	sh := func(command string) string {
		t.Helper()
		return run(t, p.command("sh", "-c", "export "+export+"\n"+command))
	}
	for _, name := range []string{"gateway", "native-gateway"} {
		if said := sh("kubectl logs -n edge deployment/" + name); strings.Contains(said, "TLS handshake error") {
			t.Errorf("who looks whether %s is ready leaves this in its log:\n%s", name, said)
		}
	}
	const was = "demo exec edge/native-gateway readlink /proc/1/exe"
	before := sh(was)
	sh("kubectl set env -n edge deployment/native-gateway " + world.FuncEnv + "=native-gateway")
	sh("kubectl set image -n edge deployment/native-gateway gateway=" + exe)
	sh("kubectl rollout status -n edge deployment/native-gateway --timeout 60s")
	if now := sh(was); now == before || now != "/program\n" {
		t.Errorf("the gateway's program is %q, and was %q", now, before)
	}
	if status, err := get(t.Context(), curl); status != 200 || err != nil {
		t.Errorf("the gateway of one's own: %d, %v; want 200", status, err)
	}
	sh("demo exec edge/native-gateway isthmus version")
	sh("kubectl set image -n edge deployment/native-gateway gateway=/nonexistent/program")
	for end := time.Now().Add(45 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		said := sh("kubectl get pods -n edge -o yaml")
		if strings.Contains(said, "find the program that the image names") && strings.Contains(said, "/nonexistent/program") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody says that there is no such program:\n%s", said)
		}
	}
}

// gone waits until a session has no process.
func gone(t *testing.T, session int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); members(t, session) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes are left", members(t, session))
		}
	}
}

// TestDownLeavesTheLock: an up that waits for it goes on in the same folder, and shuts out those who come later.
func TestDownLeavesTheLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	alone, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if err := errors.Join(writePID(filepath.Join(dir, pidFile), os.Getpid()), forget(dir)); err != nil {
		t.Fatal(err)
	}
	held, err := alone.(*os.File).Stat()
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.Stat(filepath.Join(dir, lockName)); err != nil || !os.SameFile(held, there) {
		t.Errorf("the lock that was waited for is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, pidFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the process is noted still: %v", err)
	}
	if err := writePID(filepath.Join(dir, pidFile), os.Getpid()); err != nil {
		t.Error(err)
	}
}

// TestInterrupt ends the demo as a terminal does: nothing is left.
func TestInterrupt(t *testing.T) {
	// Side by side: what they wait for is the start of a mesh.
	for _, c := range []struct {
		name, mark string
		args       []string
	}{
		{"while it starts", "API server is ready", nil},
		{"in the story", "\n1. ", nil},
		{"while up waits", "API server is ready", []string{"up"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			interrupt(t, newPlace(t).demo(c.args...), c.mark)
		})
	}
}

// interrupt runs cmd until it has said mark.
func interrupt(t *testing.T, cmd *exec.Cmd, mark string) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	interrupted := false
	for {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if !interrupted && strings.Contains(seen.String(), mark) {
			interrupted = true
			if err := unix.Kill(-cmd.Process.Pid, unix.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if !interrupted {
		t.Fatalf("it never said %q: %v\n%s", mark, err, seen.String())
	}
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit code 1\n%s", err, seen.String())
	}
	gone(t, cmd.Process.Pid)
}

func TestUsage(t *testing.T) {
	cmd := newPlace(t).demo("sideways")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), `"sideways" is not known`) {
		t.Errorf("%v: %s", err, out)
	}
}
