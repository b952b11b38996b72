package controllertest

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// process is the command isthmus controller, with the rights and the identity of its account, for the AmbientEdges of some namespaces. It lives until it is killed.
type process struct {
	s      *site
	path   string
	args   []string
	health string // where it serves /readyz
	said   string // file
	cmd    *exec.Cmd
	client *http.Client
}

// newProcess makes the command and all that it needs, and does not start it.
func newProcess(s *site, namespaces ...string) *process {
	s.t.Helper()
	p := &process{s: s, path: command.Build(s.t), said: filepath.Join(s.t.TempDir(), "controller.log")}
	p.client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	user, err := s.mesh.UserConfig(account, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		s.t.Fatal(err)
	}
	kube, err := clientcmd.LoadFromFile(s.mesh.Kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range kube.AuthInfos {
		a.ClientCertificateData, a.ClientKeyData = user.CertData, user.KeyData
	}
	text, err := clientcmd.Write(*kube)
	if err != nil {
		s.t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{}
	sa.Namespace, sa.Name = manifests.Namespace, manifests.Controller
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	if err := s.mesh.Client().SubResource("token").Create(s.t.Context(), sa, r); err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	l, err := s.mesh.NS.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	p.health = l.Addr().String()
	l.Close()
	p.args = []string{
		"controller", "--kubeconfig", file("kubeconfig", text), "--watch-namespaces", strings.Join(namespaces, ","), "--health-probe-bind-address", p.health,
		"--istiod", s.mesh.Istiod.CA.String(), "--istiod-name", s.mesh.Istiod.ServerName, "--ca-roots", file("roots.pem", s.mesh.RootPEM),
		"--token-file", file("token", []byte(r.Status.Token)), "--pod-ip", "127.0.0.1",
	}
	s.t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if said, err := os.ReadFile(p.said); s.t.Failed() && err == nil {
			s.t.Logf("the controller said:\n%s", said)
		}
	})
	return p
}

// start begins a life, and waits until it is ready. Of AmbientEdges it knows nothing from the one before.
func (p *process) start() {
	p.s.t.Helper()
	p.begin()
	p.ready()
}

// begin is start that does not wait.
func (p *process) begin() {
	p.s.t.Helper()
	f, err := os.OpenFile(p.said, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.CommandContext(context.WithoutCancel(p.s.t.Context()), p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.s.mesh.NS.Start(p.cmd); err != nil {
		p.s.t.Fatal(err)
	}
}

// ready waits until it says so of itself.
func (p *process) ready() {
	p.s.t.Helper()
	took := p.s.wait("the controller is ready", func() string {
		res, err := p.client.Get("http://" + p.health + "/readyz?verbose=1")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			return res.Status + ": " + string(text)
		}
		return ""
	})
	p.s.t.Logf("a controller is ready after %v", took.Round(time.Millisecond))
}

// kill ends it as a node does that runs out of memory: nothing is said, and nothing is finished.
func (p *process) kill() {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.s.t.Error("the controller had ended before it was killed: ", err)
	}
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
}
