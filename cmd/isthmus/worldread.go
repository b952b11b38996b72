package main

import (
	"cmp"
	"context"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// worldFlags say what is looked at: a cluster, or files.
type worldFlags struct {
	kube   kubeFlags
	config configFlags
	files  []string

	assumeClasses bool // GatewayClasses that files do not have are assumed by their names
}

// worldTimeout is how long a cluster may take to tell all that it has: some have very many objects.
const worldTimeout = 2 * time.Minute

func (f *worldFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.files, "filename", "f", nil, "look at `FILE`, and ask no cluster: YAML, a folder of it, or - for standard input; may be repeated")
	f.config.register(cmd)
	f.kube.registerCluster(cmd)
	fs.DurationVar(&f.kube.timeout, "timeout", worldTimeout, "how long the cluster may take to answer")
	f.kube.registerNamespace(cmd)
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

// world is what is looked at.
type world struct {
	*check.World
	objects int
	notes   []string
	files   map[check.Object]place // where stands what comes from files
	broken  []brokenPart           // parts of files that are no objects

	edgeNote string // that files do not tell what AmbientEdges in them name
}

// readWorld reads the files that f names, or else the cluster.
func (a *app) readWorld(ctx context.Context, f *worldFlags) (*world, error) {
	if len(f.files) > 0 {
		return a.filesWorld(ctx, f)
	}
	done := a.progress("reading the cluster")
	defer done()
	w, _, err := f.clusterWorld(ctx)
	return w, err
}

// clusterWorld reads a cluster. The client reads on.
func (f *worldFlags) clusterWorld(ctx context.Context) (*world, client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, f.kube.timeout)
	defer cancel()
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, nil, err
	}
	c, err := f.kube.wholeClient(scheme)
	if err != nil {
		return nil, nil, err
	}
	mesh, notes, err := f.config.read(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	saveMemory()
	read, err := ctl.ReadChecked(ctx, c, meshOf(mesh))
	if err != nil {
		return nil, nil, explainKube("cannot read the cluster", "", err)
	}
	if len(read.Forbidden) > 0 {
		lack := strings.Join(read.Forbidden, ", ")
		notes = append(notes, "the rights to list "+lack+" are missing: these were not looked at; the ClusterRole isthmus-view has them")
	}
	return &world{World: read.World, objects: read.Objects, notes: notes}, c, nil
}

// memoryLimit is above what a command needs that reads a cluster of half a million objects: near to it the collector has much more to do.
const memoryLimit = 820 << 20

// saveMemory holds until the command ends. GOMEMLIMIT comes before it.
func saveMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// wholeClient is a client that reads a whole cluster: it asks as fast as it is answered.
func (k *kubeFlags) wholeClient(scheme *runtime.Scheme) (client.Client, error) {
	cfg, _, err := k.config()
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1
	cfg.Wrap(ctl.Lean)
	crlog.SetLogger(logr.Discard())
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, explainKube("cannot read the cluster", cfg.Host, err)
	}
	return c, nil
}

// meshOf is what checks need of a mesh. What was read has a list of providers, be it empty.
func meshOf(m *ctl.Mesh) check.Mesh {
	return check.Mesh{
		TrustDomain: m.TrustDomain, RootNamespace: m.RootNamespace, TrustDomainAliases: m.TrustDomainAliases,
		PathNormalization: m.PathNormalization, Providers: m.Providers, Known: m.Providers != nil,
	}
}

// readFiles reads files. Objects without a namespace get that of -n. slim is that of paperWorld.
func (a *app) readFiles(f *worldFlags, slim func(*unstructured.Unstructured) bool) (*paperWorld, error) {
	w := &paperWorld{namespace: cmp.Or(f.kube.namespace, "default"), flag: "-f", tooLong: "name fewer files with -f", slim: slim}
	for _, path := range f.files {
		if err := w.read(a.stdin, path); err != nil {
			return nil, err
		}
	}
	w.settle()
	return w, nil
}

// filesWorld is what files say that there is.
func (a *app) filesWorld(ctx context.Context, f *worldFlags) (*world, error) {
	saveMemory()
	home := f.config.istiod.Home() // what paperMesh looks at is kept whole
	w, err := a.readFiles(f, func(u *unstructured.Unstructured) bool { return u.GetNamespace() != home && u.GetKind() != "Namespace" })
	if err != nil {
		return nil, err
	}
	mesh, err := f.paperMesh(ctx, w)
	if err != nil {
		return nil, err
	}
	b := check.NewBuilder(meshOf(mesh), true)
	kinds := map[schema.GroupKind]int{}
	for i := range w.objects {
		kinds[w.objects[i].GroupVersionKind().GroupKind()]++
	}
	for gk, n := range kinds {
		b.Expect(gk, n)
	}
	for i := range w.objects {
		o := &w.objects[i]
		if o.typed == nil {
			b.AddFaulty(o.Unstructured, o.where, o.faults)
			continue
		}
		if b.Fault(o.Unstructured, o.where, o.faults) {
			b.AddTyped(o.typed, o.where)
		}
		o.typed = nil // what is kept of it is a copy
	}
	if f.assumeClasses {
		for _, class := range b.AssumeClasses() {
			w.note("GatewayClass %s is not in the files: its controller is taken to be %s, as its name has it", class, edge.ClassController(class))
		}
	}
	return &world{World: b.World(), objects: len(w.objects), notes: w.notes, files: w.placed(), broken: w.broken, edgeNote: w.edgeNote()}, nil
}

// placed says where the objects stand, by their names.
func (w *paperWorld) placed() map[check.Object]place {
	files := make(map[check.Object]place, len(w.objects))
	for _, o := range w.objects {
		gk := o.GroupVersionKind().GroupKind()
		files[check.Object{Group: gk.Group, Kind: gk.Kind, NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}] = o.place
	}
	return files
}

// paperMesh is the mesh of files: what its ConfigMap says, if it is among them, and else what flags say.
func (f *worldFlags) paperMesh(ctx context.Context, w *paperWorld) (*ctl.Mesh, error) {
	at := f.config.istiod.ConfigMap()
	if len(w.of(schema.GroupKind{Kind: "ConfigMap"})) == 0 || !w.has("", "ConfigMap", at.Namespace, at.Name) {
		return f.config.assumed(), nil
	}
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, err
	}
	is, err := ctl.ReadMesh(ctx, &paperReader{world: w, scheme: scheme}, f.config.istiod)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, &failure{what: "the mesh's configuration cannot be read", err: err, next: "correct it, or leave it out of the files"}
	}
	notes, err := f.config.settle(is)
	w.notes = append(w.notes, notes...)
	return is, err
}
