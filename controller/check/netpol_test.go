package check

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestAdmits: what a rule of a NetworkPolicy of namespace shop says of a caller, at port 15008 of a pod that names its port mesh.
func TestAdmits(t *testing.T) {
	at := &plan.Pod{Spec: plan.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "mesh", ContainerPort: hbonePort}}}}}}
	caller := func(namespace string, labels map[string]string) end {
		return end{pod: &plan.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: labels}, Status: plan.PodStatus{PodIP: "10.1.0.9"}}}
	}
	cart, gateway := caller("shop", map[string]string{"app": "cart"}), caller("edge", map[string]string{"app": "web"})
	for name, c := range map[string]struct {
		rule  string
		other end
		want  tri
	}{
		"an empty rule is for everybody":            {`{}`, end{}, yes},
		"a rule for some is for maybe anybody":      {`{from: [{podSelector: {}}]}`, end{}, maybe},
		"another port":                              {`{ports: [{port: 8080}]}`, end{}, no},
		"a port of UDP":                             {`{ports: [{port: 15008, protocol: UDP}]}`, end{}, no},
		"all ports of TCP":                          {`{ports: [{protocol: TCP}]}`, end{}, yes},
		"a range with it":                           {`{ports: [{port: 15000, endPort: 15010}]}`, end{}, yes},
		"a range without it":                        {`{ports: [{port: 15000, endPort: 15007}]}`, end{}, no},
		"a port by its name":                        {`{ports: [{port: mesh}]}`, end{}, yes},
		"a port by another name":                    {`{ports: [{port: http}]}`, end{}, no},
		"all pods of the namespace, and one of it":  {`{from: [{podSelector: {}}]}`, cart, yes},
		"all pods of the namespace, and another":    {`{from: [{podSelector: {}}]}`, gateway, no},
		"pods by a label that it has not":           {`{from: [{podSelector: {matchLabels: {app: web}}}]}`, cart, no},
		"a namespace by its name":                   {`{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: edge}}}]}`, gateway, yes},
		"a namespace and pods, of which one fits":   {`{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: cart}}}]}`, gateway, no},
		"a namespace by labels that are not known":  {`{from: [{namespaceSelector: {matchLabels: {team: a}}}]}`, gateway, maybe},
		"a block with its address":                  {`{from: [{ipBlock: {cidr: 10.1.0.0/16}}]}`, gateway, yes},
		"a block with an exception for its address": {`{from: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.0.8/29]}}]}`, gateway, no},
		"an address alone is no pod":                {`{from: [{podSelector: {}}]}`, end{addr: netip.MustParseAddr("169.254.7.127")}, no},
	} {
		t.Run(name, func(t *testing.T) {
			var rule networkingv1.NetworkPolicyIngressRule
			if err := yaml.UnmarshalStrict([]byte(c.rule), &rule); err != nil {
				t.Fatal(err)
			}
			b := NewBuilder(Mesh{}, true)
			b.AddTyped(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "web"}}, "") // so that the namespace is supposed
			list := []firewall{{policy: &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}, rules: []firewallRule{{rule.From, rule.Ports}}}}
			if got := b.World().admits(list, at, c.other, hbonePort); got != c.want {
				t.Errorf("admits: %v, want %v", got, c.want)
			}
		})
	}
}

// TestMeant: which keys are taken for one of Istio's labels.
func TestMeant(t *testing.T) {
	for key, want := range map[string]string{
		"istio.io/use-waypoint":           "istio.io/use-waypoint",
		"istio.io/useWaypoint":            "istio.io/use-waypoint",
		"istio.io/use_waypoint":           "istio.io/use-waypoint",
		"istio.io/use-waypoints":          "istio.io/use-waypoint",
		"ambient.istio.io/use-waypoint":   "istio.io/use-waypoint",
		"istio.io/dataplane-mod":          "istio.io/dataplane-mode",
		"istio.io/ingress-use-waypont":    "istio.io/ingress-use-waypoint",
		"istio.io/use-waypoint-namespace": "istio.io/use-waypoint-namespace",
		"istio.io/rev":                    "",
		"istio.io/tag":                    "",
		"istio.io/global":                 "",
		"use-waypoint":                    "",
		"example.com/use-waypoint":        "",
		"istio.io/":                       "",
	} {
		if got := meant(key); got != want {
			t.Errorf("%s is taken for %q, want %q", key, got, want)
		}
	}
}
