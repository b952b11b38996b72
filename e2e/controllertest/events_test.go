package controllertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// events are those about an edge, as "Type Reason note".
func (s *site) events(name string) (all []string) {
	s.t.Helper()
	var list eventsv1.EventList
	if err := s.c.List(s.t.Context(), &list, client.InNamespace(s.edge)); err != nil {
		s.t.Fatal(err)
	}
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Kind == "AmbientEdge" && e.Regarding.Name == name {
			all = append(all, e.Type+" "+e.Reason+" "+e.Note)
		}
	}
	slices.Sort(all)
	return all
}

// told waits for events that begin so.
func (s *site) told(name string, begin ...string) {
	s.t.Helper()
	for _, b := range begin {
		s.wait("an event begins with "+b, func() string {
			all := s.events(name)
			if slices.ContainsFunc(all, func(e string) bool { return strings.HasPrefix(e, b) }) {
				return ""
			}
			return strings.Join(all, "\n")
		})
	}
}

func TestEventsTellWhatHappens(t *testing.T) {
	s := kgatewaySite(t, "events")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.told("public", "Normal Ready ", "Normal StepDone Enrol Gateway "+s.edge+"/http", "Normal StepDone Verify ", "Normal StepDone Create ", "Normal StepDone Await ",
		"Normal StepDone Wire Service "+s.shop+"/orders", "Normal StepDone Confirm ", "Normal StepDone Switch Service ")
	before := s.events("public")
	time.Sleep(600 * time.Millisecond) // three rounds of a controller that would not rest
	if after := s.events("public"); !slices.Equal(before, after) {
		t.Errorf("at rest events go on:\n%s", strings.Join(after, "\n"))
	}
	s.apply(strings.Replace(edgeOfKgateway, "name: public", "name: another", 1))
	s.told("another", "Warning Conflict ISM304 ")

	s.apply(strings.NewReplacer("GROUP", "", "KIND", "Service", "NAME", "orders").Replace(policy))
	s.delete(s.theEdge("another"))
	s.delete(s.theEdge("public"))
	s.told("public", "Warning UndoHalted ISM307 ")
	s.confirm("public")
	s.gone(s.theEdge("public"))
	s.told("public", "Normal Undone ", "Normal StepDone Unwire Service "+s.shop+"/orders", "Normal StepDone Delete Gateway "+s.shop+"/waypoint",
		"Normal StepDone Unenrol Gateway "+s.edge+"/http")
	s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
}

// A webhook that has to be asked and is not there.
const down = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: SHOP-down}
webhooks:
- name: down.example.com
  clientConfig: {url: "https://127.0.0.1:1/"}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: SHOP}}
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [services], operations: [UPDATE]}]
`

func TestAWebhookThatIsDownIsTold(t *testing.T) {
	s := kgatewaySite(t, "down")
	s.apply(down)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	s.wait("the webhook is asked", func() string {
		if s.c.Patch(t.Context(), s.service("orders"), patch, client.DryRunAll) == nil {
			return "it is not yet"
		}
		return ""
	})
	before := s.state(true)
	s.apply(edgeOfKgateway)
	f := s.refused("Service " + s.shop + "/orders")
	says(t, f, []string{"failed calling webhook", "nothing was written"}, []string{"webhook down.example.com", "validatingwebhookconfigurations", "Observe"})
	s.told("public", "Warning Refused ISM309 Service "+s.shop+"/orders")
	s.same(before, true)
	s.delete(object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", s.shop+"-down"))
	s.ready("public", v1alpha1.ReasonDone)
}
