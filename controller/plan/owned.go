package plan

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// holds says whether manager has fields of o by server-side apply, and of which its path is a part: "f:metadata", "f:labels", "f:x".
// No path asks for any field.
func holds(o metav1.Object, manager string, path ...string) bool {
	for _, m := range o.GetManagedFields() {
		if m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply && m.FieldsV1 != nil && hasPath(m.FieldsV1.GetRawBytes(), path) {
			return true
		}
	}
	return false
}

// made says whether an object was made for the edge: its label says so, and it was we who created it. A copy has the label too, from somebody else.
func (m *maker) made(o metav1.Object) bool {
	return o.GetLabels()[v1alpha1.LabelOwner] == m.Edge.Owner() && m.created(o)
}

// created says whether we have created an object: what is changed later is applied.
func (m *maker) created(o metav1.Object) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == m.Edge.FieldOwner() && f.Operation == metav1.ManagedFieldsOperationUpdate && f.Subresource == ""
	})
}

// madeWaypoint says whether a Gateway is a waypoint that was made for the edge.
func (m *maker) madeWaypoint(g *gatewayv1.Gateway) bool {
	return g.Spec.GatewayClassName == WaypointClass && m.made(g)
}

// disowned says whether a Gateway is a waypoint that was made for the edge, and has lost its label.
func (m *maker) disowned(g *gatewayv1.Gateway) bool {
	return g.Spec.GatewayClassName == WaypointClass && g.Labels[v1alpha1.LabelOwner] == "" && m.created(g)
}

// othersHold names the managers that have the field and are not AmbientEdges. An AmbientEdge may share a field with another.
func othersHold(o metav1.Object, path ...string) []string {
	var names []string
	for _, m := range o.GetManagedFields() {
		if m.FieldsV1 != nil && !strings.HasPrefix(m.Manager, v1alpha1.FieldOwnerPrefix) && hasPath(m.FieldsV1.GetRawBytes(), path) {
			names = append(names, m.Manager)
		}
	}
	return names
}

func hasPath(raw []byte, path []string) bool {
	if len(path) > 0 && !bytes.Contains(raw, []byte(path[len(path)-1])) {
		return false // which most are, and need no parsing
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return false // not what an API server writes
	}
	if len(path) == 0 {
		return len(fields) > 0
	}
	next, ok := fields[path[0]]
	return ok && (len(path) == 1 || hasPath(next, path[1:]))
}

// field says how a value that we want stands to what is there.
type field int

const (
	absent  field = iota // nobody has set it, or a value of ours is another: write it
	ours                 // it is what we want, and we hold it
	theirs               // it is what we want, and somebody else has set it: it stays theirs
	foreign              // somebody else wants another
)

// fieldState compares what a field of o is with what is wanted, for a manager. path is the field's, as managed fields have it.
func fieldState(o metav1.Object, is string, set bool, manager, want string, path []string) field {
	switch {
	case !set:
		return absent
	case holds(o, manager, path...) && (is == want || len(othersHold(o, path...)) == 0):
		if is == want {
			return ours
		}
		return absent
	case is != want:
		return foreign
	case len(othersHold(o, path...)) > 0 || len(o.GetManagedFields()) == 0:
		return theirs
	}
	return absent // another AmbientEdge has it: share it
}
