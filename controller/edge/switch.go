package edge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Switch is a setting that makes a gateway send to a Service's address.
type Switch struct {
	// On says which objects carry it.
	On On
	// Kind of those objects.
	Kind Kind
	// Path of the field, and the Value that it takes: a string or a bool.
	Path  []string
	Value any
	// For says by which objects the gateway must be told of the Service.
	For For
	// Since is the first release that has it. Empty: all that are in use.
	Since string
	// Unreleased: no release had it when this was written; Since is what was announced.
	Unreleased bool
	// Target of a policy that we make, as group and kind of a targetRef.
	Target [2]string
	// List leads to a list of an object which is not ours to write, as it has one owner as a whole, and Name to the field in an item
	// of it that names the Service.
	List []string
	Name string
	// NotFor are the kinds of routes that it does not reach.
	NotFor []string
	// Skips says what the switch does not reach. Empty: nothing is known.
	Skips string
}

// On says which objects carry a switch.
type On int

// The objects.
const (
	OnService      On = iota // the Service that is sent to
	OnIngress                // each Ingress that names it
	OnParameters             // the parameters that Gateway.spec.infrastructure refers to
	OnGateway                // a policy whose targetRefs name the Gateway
	OnServiceByRef           // a policy whose targetRefs name the Service
	OnList                   // an item of a list: only its owner can set it
)

// For says by which objects a gateway is told of a Service.
type For int

// The objects.
const (
	ForAll     For = iota
	ForRoutes      // routes of the Gateway API
	ForIngress     // Ingresses, and the vendor's own kinds
)

// Kind is a kind of objects.
type Kind struct{ Group, Version, Kind, Resource string }

// APIVersion is group and version, as objects have it.
func (k Kind) APIVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

// Writable says whether we may set it.
func (s *Switch) Writable() bool { return s.On != OnList }

// Field is the path of the switch, for people.
func (s *Switch) Field() string {
	if s.On == OnList {
		return Field(append(append([]string{}, s.List...), s.Path...))
	}
	return Field(s.Path)
}

// String is the switch as a status has it.
func (s *Switch) String() string {
	if s.On == OnService && s.Path[0] == "metadata" {
		return fmt.Sprintf("%s=%v", s.Path[2], s.Value)
	}
	return fmt.Sprintf("%s %s=%v", s.Kind.Kind, s.Field(), s.Value)
}

// Field is a path of fields for people: metadata.labels[istio.io/use-waypoint].
func Field(path []string) string {
	var b strings.Builder
	for i, p := range path {
		switch {
		case strings.ContainsAny(p, "./"):
			b.WriteString("[" + p + "]")
		case i > 0:
			b.WriteString("." + p)
		default:
			b.WriteString(p)
		}
	}
	return b.String()
}

// Use is what plans do with objects of a kind.
type Use struct {
	Kind
	Patch, Make bool // besides reading them
}

// Uses are the kinds of objects beyond those of Kubernetes, the Gateway API and Istio that plans are about, by group and name.
func Uses() []Use {
	uses := map[Kind]Use{}
	for _, v := range Vendors() {
		for i := range v.Switches {
			s := &v.Switches[i]
			if s.Kind == service() || s.Kind == ingress() {
				continue
			}
			u := uses[s.Kind]
			u.Kind, u.Patch, u.Make = s.Kind, u.Patch || s.Writable(), u.Make || s.Target[1] != ""
			uses[s.Kind] = u
		}
	}
	return slices.SortedFunc(maps.Values(uses), func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind.Kind, b.Kind.Kind))
	})
}

// Uses says whether a switch of the vendor is carried by objects of a kind.
func (v *Vendor) Uses(k Kind) bool {
	return slices.ContainsFunc(v.Switches, func(s Switch) bool { return s.Kind == k })
}

func service() Kind { return Kind{"", "v1", "Service", "services"} }

func ingress() Kind { return Kind{"networking.k8s.io", "v1", "Ingress", "ingresses"} }

// serviceLabel is a label of Services; a namespace may have it for all of them.
func serviceLabel(key string) Switch {
	return Switch{On: OnService, Kind: service(), Path: []string{"metadata", "labels", key}, Value: "true"}
}

func serviceAnnotation(key string) Switch {
	return Switch{On: OnService, Kind: service(), Path: []string{"metadata", "annotations", key}, Value: "true"}
}

func ingressAnnotation(key string) Switch {
	return Switch{On: OnIngress, Kind: ingress(), Path: []string{"metadata", "annotations", key}, Value: "true", For: ForIngress}
}
