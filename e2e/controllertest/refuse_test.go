package controllertest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

func TestWithoutConsentNothingIsWritten(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "consent")
	for name, annotation := range map[string]string{
		"none": `null`, "of another edge": `"EDGE/other, other/public"`, "of nobody in particular": `"true"`, "of a whole namespace": `"EDGE/"`, "of all": `"*"`,
	} {
		t.Run(name, func(t *testing.T) {
			s.annotate(annotation)
			before := s.state(true)
			s.apply(edgeOfKgateway)
			e, _ := s.ready("public", v1alpha1.ReasonBlocked)
			f := finding(e, v1alpha1.FindingNoConsent)
			if f == nil || f.Object != "Namespace "+s.shop || f.Severity != v1alpha1.SeverityError || f.Fix == "" {
				t.Errorf("findings are %+v", e.Status.Findings)
			}
			if len(e.Finalizers) > 0 {
				t.Errorf("finalizers are %v, and nothing was written", e.Finalizers)
			}
			s.same(before, true)
			s.delete(e)
			s.gone(e)
		})
	}
	t.Run("a grant for Services alone makes no waypoint", func(t *testing.T) {
		s.annotate(`null`)
		s.apply(grant("Service"))
		before := s.state(true)
		s.apply(edgeOfKgateway)
		s.ready("public", v1alpha1.ReasonBlocked)
		s.same(before, true)
	})
	t.Run("a grant for all that is written", func(t *testing.T) {
		s.apply(grant("Gateway"))
		s.ready("public", v1alpha1.ReasonDone)
	})
	t.Run("consent that was withdrawn stops nobody from undoing", func(t *testing.T) {
		for _, kind := range []string{"service", "gateway"} {
			s.delete(object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", s.shop, "isthmus-"+kind))
		}
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		if labels := s.service("orders").Labels; len(labels) != 1 {
			t.Errorf("the Service's labels are %v", labels)
		}
	})
}

func TestWithdrawnConsentIsTold(t *testing.T) {
	s := kgatewaySite(t, "withdrawn")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	wired := s.state(false)
	s.annotate(`"other/edge"`)
	s.wait("a finding tells that consent is gone", func() string {
		if f := finding(s.get("public"), v1alpha1.FindingNoConsent); f == nil || f.Severity != v1alpha1.SeverityWarning ||
			!strings.Contains(f.Fix, "kubectl annotate --overwrite namespace "+s.shop+" \"isthmus.dev/edges=$(kubectl get namespace "+s.shop) || strings.Contains(f.Fix, "other/edge") {
			return "nobody says so"
		}
		return ""
	})
	s.ready("public", v1alpha1.ReasonDone) // it works as it stands
	after := s.state(false)
	delete(wired, "Namespace /"+s.shop)
	delete(after, "Namespace /"+s.shop)
	if d := cmp.Diff(wired, after); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}

	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`))
	if err := s.c.Patch(t.Context(), s.service("orders"), patch); err != nil {
		t.Fatal(err)
	}
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	if f := finding(e, v1alpha1.FindingNoConsent); f == nil || f.Severity != v1alpha1.SeverityError {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	if s.service("orders").Labels[plan.LabelUseWaypoint] != "" {
		t.Error("it was written without consent")
	}
	s.annotate(`"other/edge,EDGE/public"`)
	s.ready("public", v1alpha1.ReasonDone)
}

func grant(kind string) string {
	group := ""
	if kind == "Gateway" {
		group = gatewayv1.GroupName
	}
	return `{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: isthmus-` + strings.ToLower(kind) + `, namespace: SHOP},
	  spec: {from: [{group: isthmus.dev, kind: AmbientEdge, namespace: EDGE}], to: [{group: "` + group + `", kind: ` + kind + `}]}}`
}

// annotate sets the consent of the shop; it is JSON.
func (s *site) annotate(value string) {
	s.t.Helper()
	ns := &corev1.Namespace{}
	ns.Name = s.shop
	patch := s.text(`{"metadata":{"annotations":{"isthmus.dev/edges":` + value + `}}}`)
	if err := s.c.Patch(s.t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		s.t.Fatal(err)
	}
}

func TestObserveWritesNothing(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "observe")
	before := s.state(true)
	s.apply(strings.Replace(edgeOfKgateway, "mode: Manage", "mode: Observe", 1))
	e, _ := s.ready("public", v1alpha1.ReasonObserving)
	var left []string
	for _, step := range e.Status.Plan.Steps {
		if step.State != v1alpha1.StepDone {
			left = append(left, step.Verb)
		}
	}
	if got, want := strings.Join(left, " "), "Enrol Verify Create Await Wire Confirm Switch"; got != want {
		t.Errorf("steps left are %s, want %s", got, want)
	}
	if len(e.Finalizers) > 0 {
		t.Errorf("finalizers are %v", e.Finalizers)
	}
	s.same(before, true)
	s.delete(e)
	s.gone(e)
	s.same(before, true)
}

func TestWhatOthersSetIsNotOverwritten(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "foreign")
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {team: shop, istio.io/use-waypoint: theirs}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}`)
	before := s.state(true)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingForeignValue)
	if f == nil || f.Object != "Service "+s.shop+"/orders" || !strings.Contains(f.Field, plan.LabelUseWaypoint) || !strings.Contains(f.Message, `"theirs"`) || !strings.Contains(f.Message, "isthmus-e2e") {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	s.same(before, true)

	t.Run("it goes on when they let go", func(t *testing.T) {
		s.apply(`{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {team: shop}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}`)
		s.ready("public", v1alpha1.ReasonDone)
	})
	t.Run("what they set alike stays theirs", func(t *testing.T) {
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		s.apply(`{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {team: shop, istio.io/use-waypoint: waypoint}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}`)
		s.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: SHOP}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`)
		s.wait("the waypoint has its own Service", func() string {
			g := s.wayPoint()
			if !s.exists(g) || !plan.Programmed(g) {
				return "it is not programmed"
			}
			if owners := s.service("waypoint").OwnerReferences; len(owners) != 1 || owners[0].UID != g.UID {
				return "there is that of the one before"
			}
			return ""
		})
		before := s.state(false)
		s.apply(edgeOfKgateway)
		s.ready("public", v1alpha1.ReasonDone)
		s.delete(s.theEdge("public"))
		s.gone(s.theEdge("public"))
		s.same(before, false)
	})
}

func TestTheOlderEdgeHasTheGateway(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "older")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	before := s.state(true)
	s.apply(strings.Replace(edgeOfKgateway, "name: public", "name: another", 1))
	e, _ := s.ready("another", v1alpha1.ReasonConflicted)
	if f := finding(e, v1alpha1.FindingConflictedEdge); f == nil || !strings.Contains(f.Message, s.edge+"/public") {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	s.same(before, true)
	s.ready("public", v1alpha1.ReasonDone)
}
