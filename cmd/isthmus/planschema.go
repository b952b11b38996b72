package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// crdSchema is the part of an OpenAPI schema that says which values there are.
type crdSchema struct {
	Enum       []string              `json:"enum"`
	Properties map[string]*crdSchema `json:"properties"`
	Items      *crdSchema            `json:"items"`
	Required   []string              `json:"required"`
	MinItems   int                   `json:"minItems"`
	MaxItems   *int                  `json:"maxItems"`
	MinLength  int                   `json:"minLength"`
	MaxLength  *int                  `json:"maxLength"`
}

// edgeSchema is that of AmbientEdges, as the CRD has it.
var edgeSchema = sync.OnceValues(func() (*crdSchema, error) {
	text, err := manifests.CRD()
	if err != nil {
		return nil, err
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema *crdSchema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, fmt.Errorf("read the CRD of AmbientEdges: %w", err)
	}
	if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Schema.OpenAPIV3Schema == nil {
		return nil, fmt.Errorf("read the CRD of AmbientEdges: it has %d versions, or no schema", len(crd.Spec.Versions))
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema, nil
})

// offered refuses values of an AmbientEdge that the API server would refuse: those that are none of a field's, and lists and texts that are too long or too
// short.
func offered(data []byte) error {
	schema, err := edgeSchema()
	if err != nil {
		return err
	}
	var object map[string]any
	if err := yaml.Unmarshal(data, &object); err != nil {
		return err
	}
	spec, there := object["spec"]
	if !there || schema.Properties["spec"] == nil {
		return nil
	}
	if err := schema.Properties["spec"].check("spec", spec); err != nil {
		return err
	}
	fields, _ := spec.(map[string]any)
	if (fields["targetRefs"] == nil) == (fields["workloadRefs"] == nil) {
		return refusal("spec", "takes exactly one of targetRefs and workloadRefs")
	}
	if w, _ := fields["waypoint"].(map[string]any); w["policy"] == "Create" && w["name"] == nil {
		return refusal("spec.waypoint", "has no name, which policy Create needs")
	}
	return offeredAuthorization(fields)
}

// offeredAuthorization refuses what authorization cannot be had with, as the rules of the CRD do.
func offeredAuthorization(spec map[string]any) error {
	field := func(of map[string]any, name string) map[string]any { m, _ := of[name].(map[string]any); return m }
	authorization := field(spec, "authorization")
	mode, pair := authorization["mode"], field(authorization, "pair")
	enforces := mode == string(v1alpha1.AuthorizationLock) || mode == string(v1alpha1.AuthorizationPair)
	switch {
	case enforces && spec["capture"] == string(v1alpha1.CaptureNone):
		return refusal("spec.authorization.mode", "is %v, which needs a gateway with an identity of the mesh: spec.capture None has none", mode)
	case enforces && field(spec, "waypoint")["policy"] == string(v1alpha1.WaypointNone):
		return refusal("spec.authorization.mode", "is %v, which leaves the way by the waypoint only: spec.waypoint.policy None has none", mode)
	case authorization["pair"] != nil && mode != string(v1alpha1.AuthorizationPair):
		return refusal("spec.authorization.pair", "says how Pair is done: it needs spec.authorization.mode Pair")
	case pair["scope"] == string(v1alpha1.PairScopeRoute) && (spec["targetRefs"] == nil || field(spec, "backends")["services"] != nil):
		return refusal("spec.authorization.pair.scope", "is Route, which goes by what routes call: it needs spec.targetRefs, and no spec.backends.services")
	}
	return nil
}

// valueError is a value that the API server would refuse.
type valueError struct{ field, says string }

func (e *valueError) Error() string { return e.field + " " + e.says }

func refusal(field, format string, args ...any) error {
	return &valueError{field, fmt.Sprintf(format, args...)}
}

// check says what is wrong with a value, or nil. That it is of another type was told before.
func (s *crdSchema) check(path string, v any) error {
	switch v := v.(type) {
	case string:
		switch n := utf8.RuneCountInString(v); {
		case len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
			return refusal(path, "is %q, and takes %s", v, oneOf(s.Enum))
		case n < s.MinLength:
			return refusal(path, "has %d characters, and takes %d at least", n, s.MinLength)
		case s.MaxLength != nil && n > *s.MaxLength:
			return refusal(path, "has %d characters, and takes %d at most", n, *s.MaxLength)
		}
	case []any:
		switch {
		case len(v) < s.MinItems:
			return refusal(path, "has %d items, and takes %d at least", len(v), s.MinItems)
		case s.MaxItems != nil && len(v) > *s.MaxItems:
			return refusal(path, "has %d items, and takes %d at most", len(v), *s.MaxItems)
		case s.Items == nil:
			return nil
		}
		for i := range v {
			if err := s.Items.check(fmt.Sprintf("%s[%d]", path, i), v[i]); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				return refusal(path, "has no %s", name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if of := s.Properties[name]; of != nil {
				if err := of.check(path+"."+name, v[name]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func oneOf(values []string) string {
	var b bytes.Buffer
	for i, v := range values {
		switch {
		case i > 0 && i == len(values)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", v)
	}
	return b.String()
}
