package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// progressEvery is the time between two lines about the same thing.
const progressEvery = 5 * time.Second

// module is a tool module of the repository whose programs are built together.
type module struct {
	name     string
	packages map[Name]string // import paths
	sources  []string        // own files besides go.mod and go.sum
	ldflags  string
	cgo      bool // it needs a C compiler
}

func etcdModule() module {
	return module{name: "etcd", packages: map[Name]string{Etcd: "."}, sources: []string{"main.go"}}
}

// kubernetesModule needs a version in its programs: clients refuse a server without one.
func kubernetesModule() module {
	const x = " -X k8s.io/component-base/version."
	return module{
		name: "kubernetes",
		packages: map[Name]string{
			KubeAPIServer:         "k8s.io/kubernetes/cmd/kube-apiserver",
			KubeControllerManager: "k8s.io/kubernetes/cmd/kube-controller-manager",
			Kubectl:               "k8s.io/kubernetes/cmd/kubectl",
		},
		ldflags: x + "gitVersion=v1.36.3" + x + "gitMajor=1" + x + "gitMinor=36",
	}
}

// istioModule gives its programs the version that istioctl and the proxies show.
func istioModule() module {
	const x = " -X istio.io/istio/pkg/version."
	return module{
		name: "istio", ldflags: x + "buildVersion=1.31.0" + x + "buildTag=1.31.0",
		packages: map[Name]string{
			PilotDiscovery: "istio.io/istio/pilot/cmd/pilot-discovery",
			PilotAgent:     "istio.io/istio/pilot/cmd/pilot-agent",
			Istioctl:       "istio.io/istio/istioctl/cmd/istioctl",
		},
	}
}

// spireModule keeps its server's data in SQLite, which is written in C.
func spireModule() module {
	return module{
		name: "spire", cgo: true,
		packages: map[Name]string{
			SpireServer: "github.com/spiffe/spire/cmd/spire-server",
			SpireAgent:  "github.com/spiffe/spire/cmd/spire-agent",
		},
	}
}

func (mod module) dir() string { return filepath.Join("tools", mod.name) }

// inputs are the files that pin what is built.
func (mod module) inputs() []string {
	files := []string{filepath.Join(mod.dir(), "go.mod"), filepath.Join(mod.dir(), "go.sum")}
	for _, s := range mod.sources {
		files = append(files, filepath.Join(mod.dir(), s))
	}
	return files
}

func (mod module) group() group {
	g := group{name: mod.name, inputs: mod.inputs(), salt: mod.ldflags, make: mod.build}
	for _, n := range known() {
		if _, ok := mod.packages[n]; ok {
			g.names = append(g.names, n)
		}
	}
	return g
}

// build builds names into dir.
func (mod module) build(ctx context.Context, m *maker, names []Name, dir string) (err error) {
	if mod.cgo {
		if err := findCompiler(); err != nil {
			return err
		}
	}
	argv := []string{"go", "build", "-v", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w" + mod.ldflags, "-o", dir + "/"}
	var list []string
	for _, n := range names {
		argv = append(argv, mod.packages[n])
		list = append(list, string(n))
	}
	r := begin(m.progress, "building "+strings.Join(list, ", ")+" (once)", progressEvery)
	defer func() { r.end(err) }()
	c := goCommand(filepath.Join(m.src, mod.dir()), argv)
	if mod.cgo {
		c.env = append(c.env, "CGO_ENABLED=1")
	}
	_, err = c.run(ctx, r.line)
	return err
}

// findCompiler finds the C compiler that go will look for.
func findCompiler() error {
	for _, name := range []string{os.Getenv("CC"), "gcc", "clang"} {
		if _, err := exec.LookPath(name); name != "" && err == nil {
			return nil
		}
	}
	return &absentError{"SPIRE keeps its data in SQLite, which needs a C compiler to build: install gcc or clang"}
}

// goCommand builds for this machine, whatever the user builds for otherwise.
func goCommand(dir string, argv []string) command {
	return command{argv: argv, dir: dir, env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH, "GOWORK=off", "PWD=" + dir}}
}

// moduleDir is the folder of a module that the go.mod in dir pins, downloaded if need be.
func moduleDir(ctx context.Context, m *maker, dir, path string) (string, error) {
	r := begin(m.progress, "finding module "+path, progressEvery)
	out, err := goCommand(filepath.Join(m.src, dir), []string{"go", "mod", "download", "-json", path}).run(ctx, r.line)
	r.end(err)
	if err != nil {
		return "", err
	}
	var info struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Dir == "" {
		return "", fmt.Errorf("find module %s: %q does not say its folder", path, out)
	}
	return info.Dir, nil
}
