package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// maxWorld is how long all files of --from may be together, in bytes.
const maxWorld = 512 << 20

// planFiles plans by what files say alone. e is that of -f, or nil.
func (a *app) planFiles(ctx context.Context, f *planFlags, e *v1alpha1.AmbientEdge, args []string) (*planDocument, error) {
	w := &paperWorld{namespace: f.kube.namespace}
	for _, path := range f.from {
		if err := w.read(a.stdin, path); err != nil {
			return nil, err
		}
	}
	if w.namespace == "" {
		w.namespace = "default"
	}
	w.settle()
	if e == nil {
		var err error
		if e, err = w.edge(args, f.from); err != nil {
			return nil, err
		}
	} else if e.Namespace == "" {
		e.Namespace = w.namespace
	}
	if e.CreationTimestamp.IsZero() {
		e.CreationTimestamp = metav1.NewTime(time.Now())
	}
	w.imply(e)
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, err
	}
	mesh := f.config.assumed()
	r := &paperReader{world: w, scheme: scheme}
	if is, err := ctl.ReadMesh(ctx, r, f.config.istiod); err == nil {
		notes, err := f.config.settle(is)
		if err != nil {
			return nil, err
		}
		mesh, w.notes = is, append(w.notes, notes...)
	} else {
		lack := "is not in the files"
		if !apierrors.IsNotFound(err) {
			lack = fmt.Sprintf("cannot be read (%v)", err)
		}
		w.note("the mesh's configuration %s: trust domain %s and root namespace %s are assumed", lack, mesh.TrustDomain, mesh.RootNamespace)
	}
	s, err := ctl.Observe(ctx, r, e)
	if told, is := errors.AsType[*failure](err); is {
		return nil, told
	} else if err != nil {
		return nil, &failure{what: "these files cannot be planned for", where: strings.Join(f.from, ", "), err: err, next: "correct the object that is named"}
	}
	s.TrustDomain, s.RootNamespace, s.Paper = mesh.TrustDomain, mesh.RootNamespace, true
	w.note("no API server was asked: it may refuse an AmbientEdge that is planned for here")
	return newPlanDocument(e, s, w.notes), nil
}

// paperObject is an object, and where it stands.
type paperObject struct {
	*unstructured.Unstructured
	where string // file:line
}

// paperWorld is what files say that there is.
type paperWorld struct {
	namespace string // of objects without one
	objects   []paperObject
	notes     []string
	size      int64
}

func (w *paperWorld) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// read adds what a file, the files of a folder, or standard input have.
func (w *paperWorld) read(stdin io.Reader, path string) error {
	if path == "-" {
		return w.add(stdin, "standard input")
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return w.open(path)
	}
	before := len(w.objects)
	if err == nil {
		err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && name != path && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			case d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
				return nil
			}
			// A link may lead anywhere; who writes into a pipe of a folder may never come.
			if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
				w.note("%s is no regular file, and is left out", name)
				return nil
			}
			return w.open(name)
		})
	}
	if _, told := errors.AsType[*failure](err); told {
		return err
	}
	if err != nil {
		return &failure{what: "cannot read what --from names", where: path, err: err, next: "name a file, a folder, or - for standard input"}
	}
	if len(w.objects) == before {
		return &failure{what: "there are no objects in this folder", where: path, next: "objects are in files *.yaml, *.yml and *.json"}
	}
	return nil
}

func (w *paperWorld) open(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return &failure{what: "cannot read what --from names", where: path, err: err, next: "name a file, a folder, or - for standard input"}
	}
	defer file.Close()
	return w.add(file, path)
}

// add reads YAML documents.
func (w *paperWorld) add(in io.Reader, where string) error {
	data, err := io.ReadAll(io.LimitReader(in, maxWorld-w.size+1))
	if err != nil {
		return &failure{what: "cannot read what --from names", where: where, err: err}
	}
	if w.size += int64(len(data)); w.size > maxWorld {
		return &failure{what: fmt.Sprintf("this is longer than %d MiB", maxWorld>>20), where: where, next: "leave out what the AmbientEdge has nothing to do with"}
	}
	for _, doc := range documents(strings.TrimPrefix(string(data), "\uFEFF")) {
		at := fmt.Sprintf("%s:%d", where, doc.line)
		text, err := yaml.YAMLToJSONStrict([]byte(doc.text))
		if err != nil {
			// Empty lines before it make a parser count as the file does. Only an error counts: before each of many documents they would take long.
			if _, counted := yaml.YAMLToJSONStrict([]byte(strings.Repeat("\n", doc.line-1) + doc.text)); counted != nil {
				err = counted
			}
			return &failure{what: "this is no YAML", where: at, err: err, next: "correct the file"}
		}
		if strings.TrimSpace(string(text)) == "null" {
			continue
		}
		if err := w.object(text, at); err != nil {
			return err
		}
	}
	return nil
}

// object adds one object, or those of a list.
func (w *paperWorld) object(text []byte, where string) error {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil || u.GetAPIVersion() == "" {
		return &failure{what: "this is no object of Kubernetes", where: where, err: err, next: "an object has apiVersion, kind and metadata.name; leave other files out"}
	}
	if u.IsList() {
		return u.EachListItem(func(o runtime.Object) error {
			item, _ := o.(*unstructured.Unstructured)
			return w.keep(item, where)
		})
	}
	return w.keep(u, where)
}

func (w *paperWorld) keep(u *unstructured.Unstructured, where string) error {
	if u.GetName() == "" {
		return &failure{what: "this " + u.GetKind() + " has no name", where: where, next: "set metadata.name"}
	}
	if isEdge(u) {
		text, err := u.MarshalJSON()
		if err == nil {
			err = strict(text, &v1alpha1.AmbientEdge{})
		}
		if err != nil {
			return &failure{what: "this AmbientEdge is malformed", where: where, err: err, next: "correct the field; docs/ambientedge.md has every one"}
		}
	}
	w.objects = append(w.objects, paperObject{u, where})
	return nil
}

func isEdge(u *unstructured.Unstructured) bool {
	return u.GetKind() == "AmbientEdge" && u.GetAPIVersion() == v1alpha1.GroupVersion().String()
}

// document is a YAML document, and the line at which it begins.
type document struct {
	text string
	line int
}

// documents cuts a file at its separators.
func documents(text string) (list []document) {
	var b strings.Builder
	start, line := 1, 0
	for l := range strings.Lines(text) {
		line++
		if rest, is := strings.CutPrefix(l, "---"); is && strings.TrimLeft(rest, " \t\r\n") == "" || is && strings.HasPrefix(rest, " ") {
			list = append(list, document{b.String(), start})
			b.Reset()
			start = line
			b.WriteString(strings.TrimLeft(rest, " "))
			continue
		}
		b.WriteString(l)
	}
	return append(list, document{b.String(), start})
}

// clusterScoped are the kinds without a namespace, of those that plans depend on.
func clusterScoped() []string {
	return []string{"Namespace", "GatewayClass", "IngressClass", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
}

// settle gives objects the namespace that they lack. Of what is there twice the last counts, as when it is applied.
func (w *paperWorld) settle() {
	at := map[string]int{}
	var list []paperObject
	for _, o := range w.objects {
		if o.GetNamespace() == "" && !slices.Contains(clusterScoped(), o.GetKind()) {
			o.SetNamespace(w.namespace)
		}
		key := o.GroupVersionKind().GroupKind().String() + " " + o.GetNamespace() + "/" + o.GetName()
		if i, twice := at[key]; twice {
			w.note("%s %s/%s is in the files twice: %s counts, %s does not", o.GetKind(), o.GetNamespace(), o.GetName(), o.where, list[i].where)
			list[i] = o
			continue
		}
		at[key] = len(list)
		list = append(list, o)
	}
	w.objects = list
}

// edge is the one AmbientEdge, or that which an argument names.
func (w *paperWorld) edge(args, from []string) (*v1alpha1.AmbientEdge, error) {
	var found []paperObject
	for _, o := range w.objects {
		if isEdge(o.Unstructured) && (len(args) == 0 || edgeKey(args[0], w.namespace).String() == o.GetNamespace()+"/"+o.GetName()) {
			found = append(found, o)
		}
	}
	where := strings.Join(from, ", ")
	switch {
	case len(found) == 0 && len(args) > 0:
		return nil, &failure{what: "there is no AmbientEdge " + edgeKey(args[0], w.namespace).String(), where: where, next: "name one that is there, or a file with -f"}
	case len(found) == 0:
		return nil, &failure{what: "there is no AmbientEdge", where: where, next: "name a file with -f; samples are in manifests/samples"}
	case len(found) > 1:
		var names []string
		for _, o := range found {
			names = append(names, o.GetNamespace()+"/"+o.GetName())
		}
		return nil, &failure{what: "there is more than one AmbientEdge: " + strings.Join(names, ", "), where: where, next: "name one of them as an argument"}
	}
	e := &v1alpha1.AmbientEdge{}
	text, err := found[0].MarshalJSON()
	if err == nil {
		err = strict(text, e)
	}
	return e, err
}
