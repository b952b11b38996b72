package main

import (
	"bytes"
	"cmp"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// maxFile is how long a file may be, in bytes.
const maxFile = 4 << 20

// readEdge reads the one AmbientEdge of a file. What the API server would not know is an error here already; what it would refuse is one where none is asked.
func (a *app) readEdge(path string, alone bool) (*v1alpha1.AmbientEdge, error) {
	in, where := a.stdin, "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, &failure{what: "cannot read the AmbientEdge", where: path, err: err, next: "name a file with -f"}
		}
		defer file.Close()
		in, where = file, path
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if errors.Is(err, syscall.EISDIR) {
		return nil, &failure{what: "cannot read the AmbientEdge", where: where, err: errors.New("it is a folder"), next: "name the file in it with -f; --from takes a folder, and asks no cluster"}
	}
	if err != nil {
		return nil, &failure{what: "cannot read the AmbientEdge", where: where, err: err, next: "name a file that can be read with -f"}
	}
	if len(data) > maxFile {
		return nil, &failure{what: fmt.Sprintf("this file is longer than %d MiB", maxFile>>20), where: where, next: "name one with the AmbientEdge alone"}
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // some editors begin a file with it
	var found *v1alpha1.AmbientEdge
	var text []byte // of found
	var others []string
	for _, part := range bytes.Split(append([]byte("\n"), data...), []byte("\n---")) {
		var tm metav1.TypeMeta
		if err := yaml.Unmarshal(part, &tm); err != nil {
			return nil, &failure{what: "this is no YAML", where: where, err: err, next: "correct the file; samples are in manifests/samples"}
		}
		if tm.Kind != "AmbientEdge" {
			if kind := cmp.Or(tm.Kind, "something without a kind"); tm != (metav1.TypeMeta{}) && !slices.Contains(others, kind) {
				others = append(others, kind)
			}
			continue // other objects may stand beside it
		}
		if tm.APIVersion != v1alpha1.GroupVersion().String() {
			return nil, &failure{what: "this isthmus does not know AmbientEdge of " + tm.APIVersion, where: where, next: "write apiVersion: " + v1alpha1.GroupVersion().String()}
		}
		if found != nil {
			return nil, &failure{what: "there is more than one AmbientEdge", where: where, next: "plan them one by one"}
		}
		found, text = &v1alpha1.AmbientEdge{}, part
		if err := bareOff(part, where); err != nil {
			return nil, err
		}
		if err := strict(part, found); err != nil {
			return nil, &failure{what: "this AmbientEdge is malformed", where: where, err: err, next: "correct the field; kubectl explain ambientedge.spec says what there is"}
		}
	}
	if found != nil && found.Spec.Backends != nil {
		for i, ref := range found.Spec.Backends.Services {
			if ref.Namespace == "" {
				return nil, &failure{
					what: fmt.Sprintf("this AmbientEdge is malformed: spec.backends.services[%d] has no namespace", i), where: where,
					next: "name the namespace of Service " + ref.Name + ", that of the AmbientEdge too",
				}
			}
		}
	}
	if found == nil {
		return nil, noEdgeAmong(others, where)
	}
	if !alone {
		return found, nil
	}
	if err := offered(text); err != nil {
		return nil, &failure{what: "the API server would refuse this AmbientEdge", where: where, err: err, next: "correct the field; kubectl explain ambientedge.spec says what there is"}
	}
	return found, nil
}

// strict reads YAML, and refuses fields that e does not have.
func strict(data []byte, e *v1alpha1.AmbientEdge) error {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	unknown, err := json.UnmarshalStrict(text, e)
	if err != nil {
		err = plainly(text, err)
	}
	return errors.Join(append(unknown, err)...)
}

// noEdgeAmong says that a file has no AmbientEdge, but other kinds.
func noEdgeAmong(kinds []string, where string) error {
	f := &failure{what: "there is no AmbientEdge", where: where, next: "samples are in manifests/samples"}
	if len(kinds) > 0 {
		f.what += ", but " + strings.Join(kinds, ", ")
		f.next = "write kind: AmbientEdge and apiVersion: " + v1alpha1.GroupVersion().String() + "; " + f.next
	}
	return f
}

// plainly says in YAML's words which value is of the wrong type. Other errors stay as they are.
func plainly(text []byte, err error) error {
	wrong, is := errors.AsType[*stdjson.UnmarshalTypeError](stdjson.Unmarshal(text, &v1alpha1.AmbientEdge{}))
	if !is {
		return err
	}
	of := wrong.Type
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	wants := "a number"
	switch of.Kind() {
	case reflect.Slice, reflect.Array:
		wants = "a list"
	case reflect.Struct, reflect.Map:
		wants = "fields of its own"
	case reflect.String:
		wants = "a text"
	case reflect.Bool:
		wants = "true or false"
	}
	got := map[string]string{"string": "a text", "bool": "true or false", "array": "a list", "object": "fields"}[wrong.Value]
	said := fmt.Errorf("%s takes %s, and is %s", cmp.Or(wrong.Field, "the document"), wants, cmp.Or(got, "a number"))
	if wrong.Value == "bool" && of.Kind() == reflect.String {
		return fmt.Errorf(`%w: YAML reads Off, On, Yes and No so; write "Off" in quotes`, said)
	}
	return said
}
