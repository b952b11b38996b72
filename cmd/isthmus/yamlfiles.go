package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// maxWorld is how long all files that are read may be together, in bytes.
const maxWorld = 512 << 20

// errorLine is where a parser says that its error is.
var errorLine = regexp.MustCompile(`\bline (\d+)`)

// standardInput is the name of what is no file.
const standardInput = "standard input"

// paperObject is an object, and where it stands.
type paperObject struct {
	*unstructured.Unstructured
	typed  metav1.Object // the object itself, of which Unstructured has the names alone; nil: Unstructured has it whole
	faults []check.Fault // what it has that its kind does not
	where  string        // file:line

	place
}

// place is where an object stands.
type place struct {
	doc  *document
	item int // in the list that the document is, or -1
}

// paperWorld is what files say that there is.
type paperWorld struct {
	namespace string // of objects without one
	flag      string // that named the files
	tooLong   string // what to do about too many of them
	strict    bool   // what is no object is an error, and not left out
	// slim says whether of an object only its type is kept, if checks have one for it: as trees objects are many times larger. Nil: no.
	slim func(u *unstructured.Unstructured) bool

	objects []paperObject
	broken  []brokenPart
	notes   []string
	size    int64
}

// brokenPart is a part of a file that is no object.
type brokenPart struct {
	*failure

	file string
	line int
}

func (d *document) broken(line int, what string, err error, next string) *brokenPart {
	return &brokenPart{&failure{what: what, where: d.at(line), err: err, next: next}, d.file, line}
}

func (w *paperWorld) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// read adds what a file, the files of a folder, or standard input have.
func (w *paperWorld) read(stdin io.Reader, path string) error {
	docs, err := w.documents(stdin, path)
	if err != nil {
		return err
	}
	before := len(w.objects) + len(w.broken)
	if err := w.parse(docs); err != nil {
		return err
	}
	if len(w.objects)+len(w.broken) > before {
		return nil
	}
	info, err := os.Stat(path)
	none := &failure{what: "there are no objects in this file", where: path, next: "objects have apiVersion, kind and metadata.name; name files that have some"}
	switch folder := path != "-" && err == nil && info.IsDir(); {
	case folder:
		none.what, none.next = "there are no objects in this folder", "objects are in files *.yaml, *.yml and *.json"
	case w.strict:
		return nil // who needs an object of it says which
	case path == "-":
		none.what, none.where = "there are no objects in "+standardInput, w.flag+" -"
		none.next = "see whether the command before the pipe failed; objects have apiVersion, kind and metadata.name"
	}
	return none
}

// documents are those of a file, of the files of a folder, or of standard input.
func (w *paperWorld) documents(stdin io.Reader, path string) (docs []*document, err error) {
	if path == "-" {
		return w.cut(nil, stdin, standardInput)
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return w.open(nil, path)
	}
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
			docs, err = w.open(docs, name)
			return err
		})
	}
	if _, told := errors.AsType[*failure](err); told || err == nil {
		return docs, err
	}
	return nil, &failure{what: "cannot read what " + w.flag + " names", where: path, err: err, next: "name a file, a folder, or - for standard input"}
}

func (w *paperWorld) open(docs []*document, path string) ([]*document, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, &failure{what: "cannot read what " + w.flag + " names", where: path, err: err, next: "name a file, a folder, or - for standard input"}
	}
	defer file.Close()
	return w.cut(docs, file, path)
}

// cut adds the documents of a file.
func (w *paperWorld) cut(docs []*document, in io.Reader, where string) ([]*document, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxWorld-w.size+1))
	if err != nil {
		return nil, &failure{what: "cannot read what " + w.flag + " names", where: where, err: err}
	}
	if w.size += int64(len(data)); w.size > maxWorld {
		return nil, &failure{what: fmt.Sprintf("this is longer than %d MiB", maxWorld>>20), where: where, next: w.tooLong}
	}
	return append(docs, documents(strings.TrimPrefix(string(data), "\uFEFF"), where)...), nil
}

// parsed is what a document has.
type parsed struct {
	objects []paperObject
	note    string
	broken  *brokenPart
}

// parse adds the objects of documents, in their order. What is broken is an error if w is strict, the first of all, and else left out.
func (w *paperWorld) parse(docs []*document) error {
	results := make([]parsed, len(docs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				results[i] = w.parseOne(docs[i])
			}
		})
	}
	for i := range docs {
		next <- i
	}
	close(next)
	wg.Wait()
	for i := range results {
		if part := results[i].broken; part != nil && w.strict {
			return part.failure
		} else if part != nil {
			w.broken = append(w.broken, *part)
		}
		w.objects = append(w.objects, results[i].objects...)
		if results[i].note != "" {
			w.note("%s", results[i].note)
		}
	}
	return nil
}

// parseOne changes nothing of w.
func (w *paperWorld) parseOne(doc *document) (p parsed) {
	line := doc.first()
	at := doc.at(line)
	text, err := yaml.YAMLToJSONStrict([]byte(doc.text))
	if err != nil {
		// Empty lines before it make a parser count as the file does. Only an error counts: before each of many documents they would take long.
		if _, counted := yaml.YAMLToJSONStrict([]byte(strings.Repeat("\n", doc.line-1) + doc.text)); counted != nil {
			err = counted
		}
		if counted := errorLine.FindStringSubmatch(err.Error()); counted != nil {
			line, _ = strconv.Atoi(counted[1])
		}
		return parsed{broken: doc.broken(line, "this is no YAML", err, "correct the file")}
	}
	if strings.TrimSpace(string(text)) == "null" {
		return parsed{}
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil || u.GetAPIVersion() == "" {
		if !w.strict {
			return parsed{note: at + " is no object of Kubernetes, and is left out"}
		}
		next := "an object has apiVersion, kind and metadata.name; leave other files out"
		return parsed{broken: doc.broken(line, "this is no object of Kubernetes", err, next)}
	}
	if !u.IsList() {
		w.keep(&p, paperObject{Unstructured: u, where: at, place: place{doc, -1}})
		return p
	}
	i := 0
	if err := u.EachListItem(func(o kuberuntime.Object) error {
		if item, is := o.(*unstructured.Unstructured); is {
			w.keep(&p, paperObject{Unstructured: item, where: at, place: place{doc, i}})
		}
		i++
		if p.broken != nil {
			return p.broken.failure
		}
		return nil
	}); err != nil && p.broken == nil {
		p.broken = doc.broken(line, "this list is malformed", err, "correct the file")
	}
	return p
}

func (w *paperWorld) keep(p *parsed, o paperObject) {
	if o.GetNamespace() == "" && !slices.Contains(clusterScoped(), o.GetKind()) {
		o.SetNamespace(w.namespace)
	}
	switch {
	case o.GetName() == "" && !w.strict:
		p.note = fmt.Sprintf("%s: this %s has no name, and is left out", o.where, o.GetKind())
		return
	case o.GetName() == "":
		p.broken = o.doc.broken(o.line(""), "this "+o.GetKind()+" has no name", nil, "set metadata.name")
		return
	case w.strict && isEdge(o.Unstructured):
		text, err := o.MarshalJSON()
		if err == nil {
			err = strict(text, &v1alpha1.AmbientEdge{})
		}
		if err != nil {
			p.broken = o.doc.broken(o.line(""), "this AmbientEdge is malformed", err, "correct the field; docs/ambientedge.md has every one")
			return
		}
	default:
		if o.faults = check.Faults(o.Unstructured); len(o.faults) == 0 && isEdge(o.Unstructured) {
			o.faults = refused(o.Unstructured)
		}
		if i := slices.IndexFunc(o.faults, func(f check.Fault) bool { return f.Unread }); i >= 0 && w.strict {
			f := &o.faults[i]
			p.broken = o.doc.broken(o.line(f.Field), fmt.Sprintf("%s %s/%s is malformed", o.GetKind(), o.GetNamespace(), o.GetName()), errors.New(f.Message), f.Fix)
			return
		}
	}
	if w.slim != nil && w.slim(o.Unstructured) {
		o.shrink()
	}
	p.objects = append(p.objects, o)
}

// shrink keeps an object in the type that checks have for it, if there is one.
func (o *paperObject) shrink() {
	typed, err := check.Typed(o.Unstructured)
	if err != nil || typed == nil {
		return // who adds it finds out why
	}
	o.typed = typed
	name := map[string]any{"name": o.GetName()}
	if ns := o.GetNamespace(); ns != "" {
		name["namespace"] = ns
	}
	o.Unstructured = &unstructured.Unstructured{Object: map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": name}}
}

func isEdge(u *unstructured.Unstructured) bool {
	return u.GetKind() == "AmbientEdge" && u.GetAPIVersion() == v1alpha1.GroupVersion().String()
}

// document is a YAML document, its file, and the line at which it begins.
type document struct {
	text string
	file string
	line int

	nodes nodes
}

func (d *document) at(line int) string { return fmt.Sprintf("%s:%d", d.file, line) }

// documents cuts a file at its separators.
func documents(text, file string) (list []*document) {
	start, line, from, at := 1, 0, 0, 0 // the document begins at from, the line at at
	for l := range strings.Lines(text) {
		line++
		if rest, is := strings.CutPrefix(l, "---"); is && (strings.TrimLeft(rest, " \t\r\n") == "" || strings.HasPrefix(rest, " ")) {
			list = append(list, &document{text: text[from:at], file: file, line: start})
			start, from = line, at+len(l)-len(strings.TrimLeft(rest, " "))
		}
		at += len(l)
	}
	return append(list, &document{text: text[from:], file: file, line: start})
}

// clusterScoped are the kinds without a namespace, of those that plans and checks depend on.
func clusterScoped() []string {
	return []string{
		"Namespace", "GatewayClass", "IngressClass", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService",
		"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding",
		"KongClusterPlugin", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "Node", "PersistentVolume", "StorageClass", "PriorityClass",
	}
}

// settle has each object once. Of what is there twice the last counts, as when it is applied.
func (w *paperWorld) settle() {
	at := map[string]int{}
	var list []paperObject
	for _, o := range w.objects {
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
