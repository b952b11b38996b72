package plan_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

var update = flag.Bool("update", false, "rewrite the plans in testdata")

const separator = "---plan---\n"

// TestPlans reads testdata/*.yaml: the objects of a cluster, the first AmbientEdge being the one to plan for, and then the plan. A
// waypoint answers when it has the annotation test/answers, and serves a Service that has not test/silent; with test/hearsay on the
// AmbientEdge nobody asks.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(text), separator)
			s := snapshot(t, input)
			p := plan.Make(s)
			if got := describe(p, s.Edge); *update {
				if err := os.WriteFile(file, []byte(input+separator+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("plan differs (-want +got); -update rewrites it:\n%s", d)
			}
			if !reflect.DeepEqual(s, snapshot(t, input)) {
				t.Error("the snapshot was changed")
			}
			if again := plan.Make(s); describe(again, s.Edge) != describe(p, s.Edge) || again.Digest != p.Digest {
				t.Error("the same snapshot gives another plan")
			}
		})
	}
}

// snapshot reads YAML documents.
func snapshot(t *testing.T, text string) *plan.Snapshot {
	t.Helper()
	s := &plan.Snapshot{Waypoints: map[types.NamespacedName]plan.WaypointFact{}, Served: map[types.NamespacedName]plan.WaypointFact{}}
	d := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var raw runtime.RawExtension
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var head struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(raw.Raw, &head); err != nil {
			t.Fatal(err)
		}
		switch head.Kind {
		case "AmbientEdge":
			add(t, raw.Raw, &s.Edges)
		case "Namespace":
			add(t, raw.Raw, &s.Namespaces)
		case "Pod":
			add(t, raw.Raw, &s.Pods)
		case "Service":
			add(t, raw.Raw, &s.Services)
		case "Deployment":
			add(t, raw.Raw, &s.Deployments)
		case "DaemonSet":
			add(t, raw.Raw, &s.DaemonSets)
		case "Gateway":
			add(t, raw.Raw, &s.Gateways)
		case "GatewayClass":
			add(t, raw.Raw, &s.Classes)
		case "HTTPRoute":
			add(t, raw.Raw, &s.HTTPRoutes)
		case "ReferenceGrant":
			add(t, raw.Raw, &s.ReferenceGrants)
		case "AuthorizationPolicy":
			p := &securityv1.AuthorizationPolicy{}
			if err := yaml.Unmarshal(raw.Raw, p); err != nil {
				t.Fatal(err)
			}
			s.Policies = append(s.Policies, p)
		default:
			t.Fatalf("kind %q is not known here", head.Kind)
		}
	}
	s.Edge = s.Edges[0].DeepCopy()
	if s.Hearsay = s.Edge.Annotations["test/hearsay"] != ""; s.Hearsay {
		return s
	}
	for i := range s.Gateways {
		if g := &s.Gateways[i]; g.Annotations["test/answers"] != "" {
			s.Waypoints[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = plan.WaypointFact{Answers: true}
		}
	}
	for _, q := range plan.ServicesToAsk(s) {
		if q.Service.Annotations["test/silent"] == "" {
			s.Served[types.NamespacedName{Namespace: q.Service.Namespace, Name: q.Service.Name}] = plan.WaypointFact{Answers: true}
		}
	}
	return s
}

func add[T v1alpha1.AmbientEdge | corev1.Namespace | corev1.Pod | corev1.Service | appsv1.Deployment | appsv1.DaemonSet |
	gatewayv1.Gateway | gatewayv1.GatewayClass | gatewayv1.HTTPRoute | gatewayv1beta1.ReferenceGrant](t *testing.T, raw []byte, list *[]T) {
	t.Helper()
	var o T
	if err := yaml.UnmarshalStrict(raw, &o); err != nil {
		t.Fatal(err)
	}
	*list = append(*list, o)
}

// describe is a plan for people to review.
func describe(p *plan.Plan, e *v1alpha1.AmbientEdge) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-7s %s: %s\n", s.State, s.ID, s.Reason)
		if s.Write != nil {
			fields, err := yaml.Marshal(s.Write.Fields)
			if err != nil {
				return err.Error()
			}
			fmt.Fprintf(&b, "        delete=%v %s\n", s.Write.Delete, strings.ReplaceAll(strings.TrimSpace(string(fields)), "\n", "\n        "))
		}
	}
	for _, f := range p.Findings {
		fmt.Fprintf(&b, "%s %s %s %s: %s\n        fix: %s\n", f.Code, f.Severity, f.Object, f.Field, f.Message, f.Fix)
	}
	for _, g := range p.Gateways {
		fmt.Fprintf(&b, "gateway %+v\n", g)
	}
	for _, x := range p.Backends {
		fmt.Fprintf(&b, "backend %+v\n", x)
	}
	for _, c := range p.Status(e).Conditions {
		fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}
