package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// command makes the process of a container as its spec and its image say.
func (w *pod) command(c *corev1.Container) (*exec.Cmd, error) {
	obj, _ := w.current()
	img, err := w.player.cfg.image(c.Image)
	if err != nil {
		return nil, err
	}
	f := w.facts(obj)
	f.imageDefault = img.Env
	environ, env, err := f.environ(c)
	if err != nil {
		return nil, err
	}
	binds, err := w.vols.binds(c, env, w.player.automount(obj))
	if err != nil {
		return nil, err
	}
	for path, src := range img.Files {
		binds = append(binds, bind{Source: src, Target: path, ReadOnly: true})
	}
	root, err := w.emptyRoot(c.Name)
	if err != nil {
		return nil, err
	}
	spec := &initSpec{
		Hostname: obj.Name, Root: root, Binds: binds, Env: environ, Dir: c.WorkingDir,
		Files: map[string]string{
			"/etc/hosts":         w.etcHosts(obj.Name),
			"/etc/hostname":      obj.Name + "\n",
			"/etc/resolv.conf":   w.player.resolvConf(obj.Namespace),
			"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		},
	}
	switch {
	case len(c.Command) > 0:
		spec.Argv = c.Command
	case len(img.Entrypoint) > 0:
		spec.Argv = img.Entrypoint
	default:
		spec.Func = img.Func
	}
	spec.Argv = slices.Concat(spec.Argv, c.Args)
	for i := range spec.Argv {
		spec.Argv[i] = expand(spec.Argv[i], env)
	}
	path, err := w.writeSpec(c.Name, spec)
	if err != nil {
		return nil, err
	}
	cmd := world.FuncCommand(initFunc, path)
	cmd.Env = []string{} // the container's comes from the spec
	return cmd, nil
}

// facts is what the pod's environment and volumes may tell.
func (w *pod) facts(obj *corev1.Pod) *podFacts {
	return &podFacts{
		pod: obj, node: w.player.cfg.name(), ip: w.addr(), hostIP: w.player.cfg.gateway(), allocMemory: nodeMemory,
		apiAddr: netip.AddrPortFrom(w.player.cfg.apiVIP(), 443), serviceAcct: serviceAccount(obj),
		objects: inNamespace{w.player, obj.Namespace},
	}
}

// exec runs a program in the running container c, whose first process is pid, and returns what it wrote to standard
// output; an error carries what it wrote to standard error.
func (w *pod) exec(ctx context.Context, c *corev1.Container, pid int, argv []string) ([]byte, error) {
	var out, msg strings.Builder
	if err := w.execStd(ctx, c, pid, argv, nil, &out, &msg); err != nil {
		return []byte(out.String()), fmt.Errorf("%s in %s: %w: %s", argv[0], w.key, errors.Join(context.Cause(ctx), err), strings.TrimSpace(msg.String()))
	}
	return []byte(out.String()), nil
}

// execStd is exec with standard input, output and error, which nil closes. A program that ran and failed is an *exec.ExitError.
func (w *pod) execStd(ctx context.Context, c *corev1.Container, pid int, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	obj, _ := w.current()
	f := w.facts(obj)
	if img, err := w.player.cfg.image(c.Image); err == nil { // a program that is gone since may run still
		f.imageDefault = img.Env
	}
	environ, _, err := f.environ(c)
	if err != nil {
		return err
	}
	path, err := w.writeSpec(c.Name+"-exec-*", &initSpec{Argv: argv, Env: environ, Dir: c.WorkingDir})
	if err != nil {
		return err
	}
	defer os.Remove(path)
	cmd := world.FuncCommand(execFunc, fmt.Sprint(pid), path)
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := w.ns().Start(cmd); err != nil {
		return fmt.Errorf("start %s in %s: %w", argv[0], w.key, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	defer stop()
	return cmd.Wait()
}

// emptyRoot is the folder that the container mounts its root file system on.
func (w *pod) emptyRoot(container string) (string, error) {
	root := filepath.Join(w.dir, "root", container)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make root folder: %w", err)
	}
	return root, nil
}

// writeSpec stores a spec, which holds secrets; a name with a star makes a file of its own.
func (w *pod) writeSpec(name string, spec *initSpec) (string, error) {
	dir := filepath.Join(w.dir, "specs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("store spec: %w", err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("store spec: %w", err)
	}
	path := filepath.Join(dir, name+".json")
	if strings.Contains(name, "*") {
		f, err := os.CreateTemp(dir, name+".json")
		if err != nil {
			return "", fmt.Errorf("store spec: %w", err)
		}
		path = f.Name()
		f.Close()
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return "", fmt.Errorf("store spec: %w", err)
	}
	return path, nil
}

// etcHosts is the pod's /etc/hosts.
func (w *pod) etcHosts(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost\n%v\t%s\n", w.addr(), name)
	lines := make([]string, 0, len(w.player.cfg.Hosts)+len(w.spec.HostAliases))
	for host, addr := range w.player.cfg.Hosts {
		lines = append(lines, fmt.Sprintf("%v\t%s\n", addr, host))
	}
	for _, a := range w.spec.HostAliases {
		lines = append(lines, a.IP+"\t"+strings.Join(a.Hostnames, "\t")+"\n")
	}
	sort.Strings(lines)
	for _, l := range lines {
		b.WriteString(l)
	}
	return b.String()
}

// resolvConf is the /etc/resolv.conf of pods in namespace.
func (p *Player) resolvConf(namespace string) string {
	return fmt.Sprintf("search %s.svc.%s svc.%s %s\nnameserver %v\noptions ndots:5\n",
		namespace, clusterDomain, clusterDomain, clusterDomain, p.cfg.dnsVIP())
}

var _ objects = inNamespace{}

// inNamespace reads what a pod of the namespace refers to, from the player's caches.
type inNamespace struct {
	player    *Player
	namespace string
}

func (n inNamespace) configMap(name string) (*corev1.ConfigMap, error) {
	return n.player.configMaps.ConfigMaps(n.namespace).Get(name)
}

func (n inNamespace) secret(name string) (*corev1.Secret, error) {
	return n.player.secrets.Secrets(n.namespace).Get(name)
}
