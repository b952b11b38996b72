package plan

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

const gatewayAPI = "gateway.networking.k8s.io/v1"

// consents says whether a namespace lets the edge write objects of a kind there: its own namespace always does, others by the
// annotation that names the edge, or by a ReferenceGrant from AmbientEdges of its namespace to that kind.
func (m *maker) consents(namespace, group, kind string) bool {
	if namespace == m.Edge.Namespace {
		return true
	}
	if ns := m.namespace(namespace); ns != nil {
		for name := range strings.SplitSeq(ns.Annotations[v1alpha1.AnnotationEdges], ",") {
			if strings.TrimSpace(name) == keyOf(m.Edge).String() {
				return true
			}
		}
	}
	for _, g := range m.grantsIn(namespace) {
		from, to := false, false
		for _, f := range g.Spec.From {
			from = from || string(f.Group) == v1alpha1.GroupVersion().Group && f.Kind == "AmbientEdge" && string(f.Namespace) == m.Edge.Namespace
		}
		for _, t := range g.Spec.To {
			// A grant for one object by name is not one for all of the kind, which is what is asked here.
			to = to || string(t.Group) == group && string(t.Kind) == kind && t.Name == nil
		}
		if from && to {
			return true
		}
	}
	return false
}

// ask is consents, with a finding when the answer is no. what is wanted there, as in "create waypoint x".
func (m *maker) ask(namespace, group, kind, what string) bool {
	if m.consents(namespace, group, kind) {
		return true
	}
	m.lacks(namespace, lack{
		severity: v1alpha1.SeverityError,
		before:   fmt.Sprintf("this namespace has not consented to AmbientEdge %s, which wants to ", keyOf(m.Edge)),
		after:    " there; nothing is written without its consent",
	}, what, groupKind{group, kind})
	return false
}

// refuse leaves backends alone whose namespaces do not consent to what is to be written there, while there are others: whoever may add a route to a
// gateway is not to stop what is done for the rest. Where there are no others, it is an error of ask.
func (m *maker) refuse(policy v1alpha1.WaypointPolicy) {
	missing := map[*backend][]groupKind{}
	wanted := 0
	for _, b := range m.backends {
		if !b.wanted {
			continue
		}
		wanted++
		writes := slices.ContainsFunc(append(m.way(b), b.settings...), func(x setting) bool { return m.state(b.service, x) == absent })
		creates := policy == v1alpha1.WaypointCreate && m.gateway(b.waypoint) == nil
		if creates && !m.consents(b.waypoint.Namespace, gatewayv1.GroupName, "Gateway") {
			missing[b] = append(missing[b], groupKind{gatewayv1.GroupName, "Gateway"})
		}
		if m.Edge.Locks() && m.policyAt(m.lockKey(b)) == nil && !m.consents(b.key.Namespace, securityGroup, "AuthorizationPolicy") {
			missing[b] = append(missing[b], groupKind{securityGroup, "AuthorizationPolicy"})
		}
		if writes && !m.consents(b.key.Namespace, "", "Service") {
			missing[b] = append(missing[b], groupKind{"", "Service"})
		}
	}
	if len(missing) == wanted {
		return
	}
	for _, b := range m.backends {
		if len(missing[b]) == 0 {
			continue
		}
		b.wanted, b.refused = false, true
		m.lacks(b.key.Namespace, lack{
			severity: v1alpha1.SeverityWarning,
			before:   fmt.Sprintf("this namespace has not consented to AmbientEdge %s, which sends to ", keyOf(m.Edge)),
			after:    " there; that is left as it is",
		}, b.String(), missing[b]...)
	}
}

// withdrawn finds namespaces that do not consent any more to what was written there for the edge. It works as it stands, which is why
// nothing is stopped; what takes another write is an error of ask.
func (m *maker) withdrawn() {
	for _, b := range m.backends {
		if m.wrote(b.service) && !m.consents(b.key.Namespace, "", "Service") {
			m.noLonger(b.key.Namespace, "labelled Service "+b.key.Name, groupKind{"", "Service"})
		}
		if p := m.policyAt(m.lockKey(b)); p != nil && m.made(p) && !m.consents(b.key.Namespace, securityGroup, "AuthorizationPolicy") {
			m.noLonger(b.key.Namespace, "locked Service "+b.key.Name, groupKind{securityGroup, "AuthorizationPolicy"})
		}
		if m.paired(b) && !m.consents(b.key.Namespace, securityGroup, "AuthorizationPolicy") {
			m.noLonger(b.key.Namespace, "paired Service "+b.key.Name, groupKind{securityGroup, "AuthorizationPolicy"})
		}
		if g := m.gateway(b.waypoint); b.wanted && g != nil && m.madeWaypoint(g) && !m.consents(g.Namespace, gatewayv1.GroupName, "Gateway") {
			m.noLonger(g.Namespace, "created waypoint "+g.Name, groupKind{gatewayv1.GroupName, "Gateway"})
		}
	}
}

func (m *maker) noLonger(namespace, what string, kind groupKind) {
	m.lacks(namespace, lack{
		severity: v1alpha1.SeverityWarning,
		before:   fmt.Sprintf("this namespace no longer consents to AmbientEdge %s, which has ", keyOf(m.Edge)),
		after:    " there; that stays, and is not mended when it breaks",
		instead:  "; or take its Services from what the AmbientEdge sends to, which takes all of it back",
	}, what, kind)
}

// groupKind is what a ReferenceGrant may be for.
type groupKind struct{ group, kind string }

func (k groupKind) String() string {
	if k.group == "" {
		return k.kind
	}
	return k.kind + " of " + k.group
}

// lack is what a namespace does not consent to: one finding tells all of it.
type lack struct {
	severity      v1alpha1.Severity
	before, after string // of what is wanted
	instead       string // what helps too; may be empty
	wants         []string
	kinds         []groupKind
}

// lacks adds to the finding for a namespace. What came first there gives the words: of another sort only the kinds are added.
func (m *maker) lacks(namespace string, l lack, want string, kinds ...groupKind) {
	obj := "Namespace " + namespace
	is := m.lack[namespace]
	if is == nil {
		if m.lack == nil {
			m.lack = map[string]*lack{}
		}
		is = &l
		m.lack[namespace] = is
		m.found(v1alpha1.Finding{Code: v1alpha1.FindingNoConsent, Severity: l.severity, Object: obj, Field: "metadata.annotations[" + v1alpha1.AnnotationEdges + "]"})
	}
	if is.before == l.before && !slices.Contains(is.wants, want) {
		is.wants = append(is.wants, want)
	}
	for _, k := range kinds {
		if !slices.Contains(is.kinds, k) {
			is.kinds = append(is.kinds, k)
		}
	}
	var names []string
	for _, k := range is.kinds {
		names = append(names, k.String())
	}
	f := find(m.plan.Findings, func(f *v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingNoConsent && f.Object == obj })
	m.plan.holds.add(f, m.whom...)
	f.Message = is.before + listed(is.wants) + is.after
	// What follows the command is a comment to a shell.
	f.Fix = fmt.Sprintf("%s # or a ReferenceGrant there from AmbientEdge in %s to %s%s", m.consentCommand(namespace), m.Edge.Namespace, strings.Join(names, " and "), is.instead)
}

// consentCommand adds the edge to those that the namespace has consented to. Those are read when it is run: who reads a status need not know them.
func (m *maker) consentCommand(namespace string) string {
	overwrite := ""
	if ns := m.namespace(namespace); ns != nil {
		value, there := ns.Annotations[v1alpha1.AnnotationEdges]
		switch {
		case there && value == "":
			overwrite = " --overwrite"
		case there:
			return fmt.Sprintf(`kubectl annotate --overwrite namespace %s "%s=$(kubectl get namespace %s -o jsonpath='{.metadata.annotations.%s}'),%s"`,
				namespace, v1alpha1.AnnotationEdges, namespace, strings.ReplaceAll(v1alpha1.AnnotationEdges, ".", `\.`), keyOf(m.Edge))
		}
	}
	return fmt.Sprintf("kubectl annotate%s namespace %s %s=%s", overwrite, namespace, v1alpha1.AnnotationEdges, keyOf(m.Edge))
}

// shellWord quotes what a shell would take for more than a word.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./,:=@", r)
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ConsentCommand is what the owner of a namespace runs to consent to the AmbientEdge of s, beside those that it consents to already. Empty: it has, or
// it is the AmbientEdge's own.
func ConsentCommand(s *Snapshot, namespace string) string {
	m := &maker{Snapshot: s}
	if m.consents(namespace, "", "Service") && m.consents(namespace, gatewayv1.GroupName, "Gateway") {
		return ""
	}
	return m.consentCommand(namespace)
}
