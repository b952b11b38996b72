package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Question asks what becomes of requests.
type Question struct {
	From Source
	To   Target
	// Request is what is known of the requests. Source and destination are filled in; addresses of sources only where they are not given.
	Request policy.Request
	// As is who those are that the mesh carries, in place of who they are: for who tries it with another identity. Zero: they are themselves.
	As spiffeid.ID
}

// Source is who sends.
type Source struct {
	// Kind is Gateway, Deployment, DaemonSet, Pod or ServiceAccount; empty is a Gateway, or the workload of an Ingress controller, or else a ServiceAccount.
	Kind string
	Key  types.NamespacedName
	// ID stands in for Kind and Key.
	ID spiffeid.ID
}

// String is how ParseSource reads it.
func (s Source) String() string {
	switch {
	case !s.ID.IsZero():
		return s.ID.String()
	case s.Kind == "":
		return s.Key.String()
	}
	return strings.ToLower(s.Kind) + "/" + s.Key.String()
}

// sourceKinds are the kinds that a source may begin with.
func sourceKinds() map[string]string {
	return map[string]string{
		"gateway": "Gateway", "deployment": "Deployment", "deploy": "Deployment", "daemonset": "DaemonSet", "pod": "Pod",
		"serviceaccount": "ServiceAccount", "sa": "ServiceAccount",
	}
}

// ParseSource reads NAMESPACE/NAME, KIND/NAMESPACE/NAME or a SPIFFE id.
func ParseSource(text string) (Source, error) {
	if strings.Contains(text, "://") {
		id, err := spiffeid.FromString(text)
		return Source{ID: id}, err
	}
	kind, key, err := parse(text, sourceKinds())
	return Source{Kind: kind, Key: key}, err
}

// parse reads [KIND/]NAMESPACE/NAME.
func parse(text string, kinds map[string]string) (string, types.NamespacedName, error) {
	parts := strings.Split(text, "/")
	kind := ""
	if len(parts) == 3 {
		if kind = kinds[strings.ToLower(parts[0])]; kind == "" {
			return "", types.NamespacedName{}, fmt.Errorf("%q begins with no kind that is known", text)
		}
		parts = parts[1:]
	}
	if len(parts) != 2 || slices.Contains(parts, "") {
		return "", types.NamespacedName{}, fmt.Errorf("%q is not NAMESPACE/NAME", text)
	}
	return kind, types.NamespacedName{Namespace: parts[0], Name: parts[1]}, nil
}

// Target is where requests are sent.
type Target struct {
	// Kind is Service or Pod. Empty is a Service.
	Kind string
	Key  types.NamespacedName
	// Port is a number, or a name of a Service's port. Empty: the only one that a Service has; unknown for a pod.
	Port string
}

// String is how ParseTarget reads it.
func (t Target) String() string {
	s := t.Key.String()
	if t.Kind == "Pod" {
		s = "pod/" + s
	}
	if t.Port != "" {
		s += ":" + t.Port
	}
	return s
}

// ParseTarget reads [service/]NAMESPACE/NAME[:PORT] or pod/NAMESPACE/NAME[:PORT].
func ParseTarget(text string) (Target, error) {
	name, port, has := strings.Cut(text, ":")
	if has && port == "" {
		return Target{}, fmt.Errorf("%q ends without a port", text)
	}
	kind, key, err := parse(name, map[string]string{"service": "Service", "svc": "Service", "pod": "Pod"})
	return Target{Kind: kind, Key: key, Port: port}, err
}

// NotFoundError says that something which a question names is not there.
type NotFoundError struct {
	// What is not there, and Known are the names of what is, those that are alike first. There may be More.
	What  string
	Known []string
	More  int

	several bool // What is there, more than once
}

// Error says it in one line.
func (e *NotFoundError) Error() string {
	if e.several {
		return e.What
	}
	return "there is no " + e.What
}

// mostKnown is how many names a NotFoundError has.
const mostKnown = 8

// notFound sorts names: those first that have a part in common with what was meant.
func notFound(what string, meant types.NamespacedName, known []string) *NotFoundError {
	slices.Sort(known)
	known = slices.Compact(known)
	alike := func(name string) int {
		ns, n, _ := strings.Cut(name, "/")
		n, _, _ = strings.Cut(n, ":")
		switch {
		case n == meant.Name:
			return 0
		case ns == meant.Namespace:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(known, func(a, b string) int { return alike(a) - alike(b) })
	most := min(len(known), mostKnown)
	return &NotFoundError{What: what, Known: known[:most], More: len(known) - most}
}
