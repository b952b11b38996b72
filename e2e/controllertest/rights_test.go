package controllertest

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/run"
)

// weak is an account that a controller runs with, and that has only the rights which s gives it.
func (s *site) weak() string { return "weak-" + s.edge }

// grant gives the weak account rights, by a ClusterRole of that name; no rules take them away.
func (s *site) grant(name string, rules []rbacv1.PolicyRule) {
	s.t.Helper()
	name = "test-" + s.weak() + "-" + name
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.delete(role)
	if rules == nil {
		return
	}
	role.Rules = rules
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: s.weak()}},
	}
	for _, o := range []client.Object{role, binding} {
		if err := s.c.Create(s.t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			s.t.Fatal(err)
		}
	}
	if err := s.mesh.WaitGranted(s.t.Context(), "", s.weak(), rules...); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		for _, o := range []client.Object{role, binding} {
			s.remove(o) // of another test there is another
		}
	})
}

// without are the rights to manage, less those to write one resource.
func without(resource string) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, r := range run.ManageRules() {
		rest := []string{}
		for _, name := range r.Resources {
			if name != resource {
				rest = append(rest, name)
			}
		}
		if r.Resources = rest; len(rest) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

// refused waits until the edge is blocked by a refusal for an object, and returns that finding.
func (s *site) refused(object string) (f *v1alpha1.Finding) {
	s.t.Helper()
	s.wait("a finding tells that "+object+" was refused", func() string {
		e, _ := s.ready("public", v1alpha1.ReasonBlocked)
		if f = finding(e, v1alpha1.FindingRefused); f == nil || f.Object != object {
			return e.Status.Conditions[0].Message
		}
		return ""
	})
	if f.Severity != v1alpha1.SeverityError {
		s.t.Errorf("the finding is %+v", f)
	}
	return f
}

// says checks that a finding has what a person needs to know.
func says(t *testing.T, f *v1alpha1.Finding, message, fix []string) {
	t.Helper()
	for _, m := range message {
		if !strings.Contains(f.Message, m) {
			t.Errorf("the message lacks %q: %s", m, f.Message)
		}
	}
	for _, m := range fix {
		if !strings.Contains(f.Fix, m) {
			t.Errorf("the fix lacks %q: %s", m, f.Fix)
		}
	}
}

func TestMissingRightsAreTold(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "rights")
	s.grant("observe", run.ObserveRules())
	s.instead(s.weak(), run.Options{Prober: shared.ask})
	before := s.state(true)
	s.apply(edgeOfKgateway)
	for _, c := range []struct {
		name   string
		rules  []rbacv1.PolicyRule
		object string
		says   string
	}{
		{"none", nil, "Gateway " + s.edge + "/http", `cannot patch resource "gateways"`},
		{"none for a later step", without("services"), "Service " + s.shop + "/orders", `cannot patch resource "services"`},
		{"none for the finalizer", without("ambientedges"), "AmbientEdge " + s.edge + "/public", `cannot patch resource "ambientedges"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{t: t, mesh: s.mesh, c: s.c, edge: s.edge, shop: s.shop}
			s.grant("manage", c.rules)
			f := s.refused(c.object)
			says(t, f, []string{`"` + s.weak() + `"`, c.says, "nothing was written"}, []string{"isthmus-manage", "Observe"})
			if e := s.get("public"); len(e.Finalizers) > 0 {
				t.Errorf("finalizers are %v", e.Finalizers)
			} else if state := e.Status.Plan.Steps[0].State; state != v1alpha1.StepBlocked && state != v1alpha1.StepHeld { // as all backends are
				t.Errorf("the first step is %s", state)
			}
			s.same(before, true)
		})
	}
	s.grant("manage", run.ManageRules())
	s.ready("public", v1alpha1.ReasonDone)

	t.Run("rights that were taken away later", func(t *testing.T) {
		s := &site{t: t, mesh: s.mesh, c: s.c, edge: s.edge, shop: s.shop}
		s.grant("manage", without("services"))
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`))
		if err := s.c.Patch(t.Context(), s.service("orders"), patch); err != nil {
			t.Fatal(err)
		}
		says(t, s.refused("Service "+s.shop+"/orders"), []string{"what was written before stays"}, []string{"isthmus-manage", "delete the AmbientEdge"})
		wired := s.state(true)
		s.delete(s.theEdge("public"))
		s.wait("undo is refused, and nothing is taken back", func() string {
			if f := finding(s.get("public"), v1alpha1.FindingRefused); f == nil || !strings.Contains(f.Message, "not taken back yet") {
				return "nobody says so"
			}
			return ""
		})
		s.same(wired, true)
	})
	s.grant("manage", run.ManageRules())
	s.gone(s.theEdge("public"))
	s.same(before, true)
}

// reading are the rights of rules that are about a resource, or all others.
func reading(rules []rbacv1.PolicyRule, resource string, only bool) (list []rbacv1.PolicyRule) {
	for _, r := range rules {
		if slices.Contains(r.Resources, resource) == only {
			list = append(list, r)
		}
	}
	return list
}

// TestAKindThatMayNotBeReadStopsWhoNeedsIt lets a controller manage two edges, of two vendors, without the right to read a kind of one of them.
func TestAKindThatMayNotBeReadStopsWhoNeedsIt(t *testing.T) {
	t.Parallel()
	const hidden = "backendtrafficpolicies"
	s := kgatewaySite(t, "hidden")
	v := edge.Vendors()[slices.IndexFunc(edge.Vendors(), func(v edge.Vendor) bool { return v.Name == "envoy-gateway" })]
	other, w := vendorSite(t, &v, "hidden-envoy")
	s.own, other.own = true, true
	s.grant("observe", reading(run.ObserveRules(), hidden, false))
	s.grant("manage", run.ManageRules())
	stop, err := runController(s.mesh, s.weak(), run.Options{Prober: shared.ask}, nil, s.edge, other.edge)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	before, otherBefore := s.state(false), other.state(true)
	w.edge.SetLabels(map[string]string{labelOwn: "yes"})
	text, err := yaml.Marshal(w.edge.Object)
	if err != nil {
		t.Fatal(err)
	}
	other.apply(string(text))
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	e, _ := other.ready("public", v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingHidden)
	if f == nil || f.Severity != v1alpha1.SeverityError || f.Object != "Gateway "+other.edge+"/http" || len(e.Finalizers) > 0 {
		t.Fatalf("findings are %+v, finalizers %v", e.Status.Findings, e.Finalizers)
	}
	says(t, f, []string{"BackendTrafficPolicy", hidden + ".gateway.envoyproxy.io", "list and watch"}, []string{"isthmus-observe", hidden})
	other.same(otherBefore, true)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public")) // undo needs nothing of it
	s.same(before, false)

	s.grant("rest", reading(run.ObserveRules(), hidden, true))
	e, took := other.ready("public", v1alpha1.ReasonDone)
	if f := finding(e, v1alpha1.FindingHidden); f != nil {
		t.Errorf("it is told still: %s", f.Message)
	}
	t.Logf("with the right there it is ready after %v", took)
	other.delete(other.theEdge("public"))
	other.gone(other.theEdge("public"))
}

// A policy of the platform's own that lets nobody but people label Services of the shop.
const hands = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: SHOP-hands-off}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [services], operations: [UPDATE]}]}
  matchConditions: [{name: shop, expression: "request.namespace == 'SHOP'"}]
  validations: [{expression: "!('istio.io/use-waypoint' in object.metadata.?labels.orValue({}))", message: hands off our Services}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: SHOP-hands-off}
spec: {policyName: SHOP-hands-off, validationActions: [Deny]}
`

func TestAdmissionThatDeniesIsTold(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "denied")
	s.apply(hands)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":"waypoint"}}}`))
	s.wait("the policy denies", func() string {
		if s.c.Patch(t.Context(), s.service("orders"), patch, client.DryRunAll) == nil {
			return "it does not yet"
		}
		return ""
	})
	before := s.state(true)
	s.apply(edgeOfKgateway)
	f := s.refused("Service " + s.shop + "/orders")
	says(t, f, []string{s.shop + "-hands-off", "hands off our Services", "nothing was written"}, []string{"admission policy", "Observe"})
	if len(s.get("public").Finalizers) > 0 {
		t.Error("it has a finalizer")
	}
	s.same(before, true)
	for _, kind := range []string{"ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"} {
		s.delete(object("admissionregistration.k8s.io/v1", kind, "", s.shop+"-hands-off"))
	}
	s.wait("the policy denies no more", func() string {
		if err := s.c.Patch(s.t.Context(), s.service("orders"), patch, client.DryRunAll); err != nil {
			return err.Error()
		}
		return ""
	})
	s.ready("public", v1alpha1.ReasonDone)
	if s.service("orders").Labels[plan.LabelUseWaypoint] != "waypoint" {
		t.Errorf("labels are %v", s.service("orders").Labels)
	}
}
