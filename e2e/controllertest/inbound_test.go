package controllertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// inboundPolicy lets nobody in: at capture ztunnel begins to enforce it before the gateway's pods.
const inboundPolicy = `
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: callers, namespace: EDGE}, spec: {selector: {matchLabels: {app: gateway}}RULES}}
`

// TestAPolicyBeforeTheGatewayDoesNotCutItOff: what the controller's cache keeps of policies is enough to tell who would be refused, and each change of
// one is followed.
func TestAPolicyBeforeTheGatewayDoesNotCutItOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, "inbound")
	s.apply(stagesWorld)
	rules := func(text string) { s.apply(strings.Replace(inboundPolicy, "RULES", text, 1)) }
	rules("")
	time.Sleep(2 * time.Second) // whoever is not told of a policy yet cannot heed it
	s.apply(stagesEdge)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.edge, Name: "gateway"}}
	bypass := func(want string) {
		t.Helper()
		s.wait("the pod template has bypass "+want, func() string {
			s.exists(d)
			meta := d.Spec.Template.ObjectMeta
			if meta.Labels[plan.LabelDataplaneMode] == "ambient" && meta.Annotations[plan.AnnotationBypassInbound] == want {
				return ""
			}
			return fmt.Sprintf("it has labels %v and annotations %v", meta.Labels, meta.Annotations)
		})
	}
	bypass("true")
	rules(", rules: [{}]") // it lets everybody in now
	bypass("")
	rules("")
	time.Sleep(time.Second) // no policy that comes later takes the gateway's inbound connections from the mesh
	bypass("")
}
