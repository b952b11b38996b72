package spiretest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// spireWorld is the SPIRE server of a trust domain and an agent that attests the workloads of this machine by their user.
type spireWorld struct {
	t        *testing.T
	td       spiffeid.TrustDomain
	programs programs.Set
	dir      string
	socket   string // of the agent
	parent   string // SPIFFE id of the agent
	agent    *exec.Cmd
}

// newSPIRE starts both. Where they cannot be built it skips the test. With a plugin for it the server's authority is below another one.
func newSPIRE(t *testing.T, td spiffeid.TrustDomain, upstream ...string) *spireWorld {
	t.Helper()
	set, err := programs.Ensure(t.Context(), programs.SPIRE(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range set.Missing() { // Ensure fails with CI=true
		t.Skipf("%s: %s", m.Name, m.Reason)
	}
	w := &spireWorld{t: t, td: td, programs: set, dir: world.SocketDir(t)}
	w.socket = filepath.Join(w.dir, "agent.sock")
	port := freePort(t)
	w.write("server.conf", fmt.Sprintf(`
server {
  bind_address = "127.0.0.1"
  bind_port = "%[1]d"
  socket_path = "%[2]s/server.sock"
  trust_domain = "%[3]s"
  data_dir = "%[2]s/server"
  log_level = "WARN"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3", connection_string = "%[2]s/datastore.sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  %[4]s
}
`, port, w.dir, td.Name(), strings.Join(upstream, "\n")))
	w.write("agent.conf", fmt.Sprintf(`
agent {
  data_dir = "%[2]s/agent"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = "%[1]d"
  socket_path = "%[2]s/agent.sock"
  trust_domain = "%[3]s"
  insecure_bootstrap = true
  experimental { sync_interval = "1s" } // with the usual 5 s it would learn the same, and tests wait for it
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "%[2]s/agent" } }
  WorkloadAttestor "unix" { plugin_data {} }
}
`, port, w.dir, td.Name()))
	w.start(programs.SpireServer, "run", "-config", filepath.Join(w.dir, "server.conf"))
	w.await("the server", func() error {
		_, err := w.try(programs.SpireServer, "healthcheck", "-socketPath", filepath.Join(w.dir, "server.sock"))
		return err
	})
	_, token, _ := strings.Cut(w.server("token", "generate"), "Token: ")
	token, _, _ = strings.Cut(token, "\n")
	w.parent = td.IDString() + "/spire/agent/join_token/" + token
	w.startAgent("-joinToken", token)
	return w
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (w *spireWorld) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start runs a program until the test ends. What it says is shown when the test has failed.
func (w *spireWorld) start(name programs.Name, args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(w.programs.Path(name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for what it leaves behind
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		stop(cmd)
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", name, said.String())
		}
	})
	return cmd
}

// stop kills a program and waits, once.
func stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	}
}

// startAgent starts the agent, with its token the first time.
func (w *spireWorld) startAgent(args ...string) {
	w.t.Helper()
	w.agent = w.start(programs.SpireAgent, append([]string{"run", "-config", filepath.Join(w.dir, "agent.conf")}, args...)...)
	w.await("the agent", func() error {
		_, err := w.try(programs.SpireAgent, "healthcheck", "-socketPath", w.socket)
		return err
	})
}

// await waits until a program serves.
func (w *spireWorld) await(what string, ready func() error) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if err = ready(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // a real clock: a program starts
	}
	w.t.Fatalf("%s does not serve: %v", what, err)
}

// try runs a program to its end.
func (w *spireWorld) try(name programs.Name, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, w.programs.Path(name), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// server asks the server for something; args begin with a command of one or more words.
func (w *spireWorld) server(args ...string) string {
	w.t.Helper()
	out, err := w.try(programs.SpireServer, append(args, "-socketPath", filepath.Join(w.dir, "server.sock"))...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// entry registers an identity of this process.
func (w *spireWorld) entry(id string, more ...string) {
	w.t.Helper()
	w.server(append([]string{"entry", "create", "-parentID", w.parent, "-spiffeID", id, "-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())}, more...)...)
}
