package scale

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// account is whom the controller is to the API server.
const account = "system:serviceaccount:" + manifests.Namespace + ":" + manifests.Controller

// process is a running controller.
type process struct {
	t      *testing.T
	m      *mesh.Mesh
	cmd    *exec.Cmd
	client *http.Client
	log    string
}

// launch starts a controller.
func launch(t *testing.T, m *mesh.Mesh) *process {
	t.Helper()
	user, err := m.UserConfig(account, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	kube, err := clientcmd.LoadFromFile(m.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range kube.AuthInfos {
		a.ClientCertificateData, a.ClientKeyData = user.CertData, user.KeyData
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kube, path); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, m: m, cmd: world.FuncCommand("controller", path), log: filepath.Join(m.Dir, "logs", "controller.log")}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(p.cmd.Environ(), "GOMEMLIMIT=160MiB") // as its manifest has it
	if err := m.NS.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	p.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: m.NS.DialContext, DisableKeepAlives: true}}
	t.Cleanup(p.stop)
	return p
}

// stop ends it; a second call does nothing.
func (p *process) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(p.log)
		p.t.Errorf("the controller ended with %v:\n%s", err, text)
	}
}

// metrics is what it tells; empty while it does not.
func (p *process) metrics() string {
	res, err := p.client.Get("http://" + metricsAddress + "/metrics")
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// sum of all series of a metric.
func (p *process) sum(name string) (total float64) {
	for line := range strings.Lines(p.metrics()) {
		if rest, ok := strings.CutPrefix(line, name); ok && strings.ContainsAny(rest[:1], "{ ") {
			f := strings.Fields(rest)
			n, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				p.t.Error(err)
			}
			total += n
		}
	}
	return total
}

// reconciled is how many AmbientEdges it has reconciled, counting repetitions; 0 while it does not tell.
func (p *process) reconciled() int { return int(p.sum("controller_runtime_reconcile_total")) }

// heap is what is in use of it, in MB.
func (p *process) heap() int { return int(p.sum("go_memstats_heap_inuse_bytes")) >> 20 }

// knows sees that it serves every metric that the manifests for monitoring name, and what its own say of edges that are ready.
func (p *process) knows(t *testing.T) {
	t.Helper()
	names, err := manifests.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	text := p.metrics()
	for _, name := range names {
		if name == "isthmus_findings" { // there is none
			continue
		}
		if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("the manifests name %s, and the controller does not serve it", name)
		}
	}
	for line, want := range map[string]int{
		`isthmus_edges{mode="Manage",reason="Done"}`: *edges,
		`isthmus_backends{state="wired"}`:            *services,
		`isthmus_backends{state="waiting"}`:          0,
	} {
		if !strings.Contains(text, fmt.Sprintf("\n%s %d\n", line, want)) {
			t.Errorf("no line is %s %d", line, want)
		}
	}
}

// mb is its resident memory now, and at its highest.
func (p *process) mb() (now, highest int) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &highest)
	}
	return now >> 10, highest >> 10
}

// cpu is the processor time that it has taken.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	return cpuOf(p.t, p.cmd.Process.Pid)
}

// serversCPU is what etcd and the API server have taken.
func serversCPU(t *testing.T, m *mesh.Mesh) (total time.Duration) {
	t.Helper()
	for _, p := range m.Processes() {
		if p.Name == string(programs.Etcd) || p.Name == string(programs.KubeAPIServer) {
			total += cpuOf(t, p.PID)
		}
	}
	return total
}

func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ
}

// audit is the API server's own book of what the controller writes.
type audit struct {
	t   *testing.T
	log string
}

// auditPolicy is for Options.APIServerArgs.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["` + account + `"], verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
`

// newAudit is a book, with the arguments that the API server needs for it.
func newAudit(t *testing.T) (*audit, []string) {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &audit{t, filepath.Join(filepath.Dir(policy), "audit.log")}
	return a, []string{"--audit-policy-file=" + policy, "--audit-log-path=" + a.log}
}

// writes are all requests until now, by what they did.
func (a *audit) writes() (total int, kinds map[string]int) {
	a.t.Helper()
	kinds = map[string]int{}
	f, err := os.Open(a.log)
	if os.IsNotExist(err) {
		return 0, kinds
	}
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			Verb      string
			ObjectRef struct{ Resource, Subresource string }
		}
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			break // a line that is being written
		}
		total++
		kinds[strings.TrimSuffix(e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")]++
	}
	return total, kinds
}
