package plan_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

var update = flag.Bool("update", false, "rewrite the plans in testdata")

const separator = "---plan---\n"

// TestPlans reads testdata/*.yaml: the objects of a cluster, the first AmbientEdge being the one to plan for, and then the plan. A
// waypoint answers when it has the annotation test/answers, does not for the reason in test/why, and serves a Service that has not test/silent;
// a witness is shown unless it has the reason in test/hides; with test/hearsay on the AmbientEdge nobody asks, with test/unable nobody can,
// with test/observe-only nobody may write, kinds in test/hidden or test/rules-hidden may not be read, and with test/paper there are files alone.
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

// TestEveryVendorHasItsPlans asks for the cases that each gateway of the table must have.
func TestEveryVendorHasItsPlans(t *testing.T) {
	for _, v := range edge.Vendors() {
		files, err := filepath.Glob("testdata/" + v.Name + "-*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, f := range files {
			have[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), v.Name+"-"), ".yaml")] = true
		}
		for _, want := range []string{"fresh", "set-by-others", "undo"} {
			if !have[want] {
				t.Errorf("%s has no plan %s", v.Name, want)
			}
			delete(have, want)
		}
		trap := false
		for name := range have {
			trap = trap || strings.HasPrefix(name, "trap-")
		}
		if !trap {
			t.Errorf("%s has no trap", v.Name)
		}
	}
}

// snapshot reads YAML documents.
func snapshot(t testing.TB, text string) *plan.Snapshot {
	t.Helper()
	s := &plan.Snapshot{Waypoints: map[types.NamespacedName]plan.WaypointFact{}, Served: map[types.NamespacedName]plan.WaypointFact{}}
	d := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	var pods []corev1.Pod
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
			pods = pods[:0]
			add(t, raw.Raw, &pods)
			s.Pods = append(s.Pods, plan.PodOf(&pods[0]))
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
		case "RequestAuthentication":
			p := &securityv1.RequestAuthentication{}
			if err := yaml.Unmarshal(raw.Raw, p); err != nil {
				t.Fatal(err)
			}
			s.RequestAuthentications = append(s.RequestAuthentications, p)
		case "PeerAuthentication":
			p := &securityv1.PeerAuthentication{}
			if err := yaml.Unmarshal(raw.Raw, p); err != nil {
				t.Fatal(err)
			}
			s.Strictness = append(s.Strictness, p)
		case "Ingress":
			add(t, raw.Raw, &s.Ingresses)
		case "IngressClass":
			add(t, raw.Raw, &s.IngressClasses)
		case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService":
			s.Callees = append(s.Callees, plan.CalleesOf(parsed(t, raw.Raw))...)
		case "ListenerSet", "XListenerSet":
			s.ListenerSets = append(s.ListenerSets, parsed(t, raw.Raw))
		case "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute":
			s.OtherRoutes = append(s.OtherRoutes, parsed(t, raw.Raw))
		case "WasmPlugin", "TrafficExtension", "EnvoyFilter":
			s.Extensions = append(s.Extensions, parsed(t, raw.Raw))
		case "ServiceEntry":
			s.ServiceEntries = append(s.ServiceEntries, parsed(t, raw.Raw))
		default:
			o := parsed(t, raw.Raw)
			switch used := slices.ContainsFunc(edge.Uses(), func(u edge.Use) bool { return u.Kind.Kind == head.Kind && u.APIVersion() == o.GetAPIVersion() }); {
			case used: // it is read for that alone
				s.Objects = append(s.Objects, o)
			case slices.Contains(plan.RuleKinds(), o.GroupVersionKind()):
				s.Rules = append(s.Rules, o)
			default:
				t.Fatalf("kind %q is not known here", head.Kind)
			}
		}
	}
	s.Edge = s.Edges[0].DeepCopy()
	s.ObserveOnly, s.Unable = s.Edge.Annotations["test/observe-only"] != "", s.Edge.Annotations["test/unable"]
	for _, text := range strings.Fields(s.Edge.Annotations["test/hidden"]) { // group/version/Kind/resource
		part := strings.Split(text, "/")
		s.Hidden = append(s.Hidden, edge.Kind{Group: part[0], Version: part[1], Kind: part[2], Resource: part[3]})
	}
	for _, text := range strings.Fields(s.Edge.Annotations["test/rules-hidden"]) {
		part := strings.Split(text, "/")
		s.RulesHidden = append(s.RulesHidden, edge.Kind{Group: part[0], Version: part[1], Kind: part[2], Resource: part[3]})
	}
	s.Paper = s.Edge.Annotations["test/paper"] != ""
	if s.Hearsay = s.Edge.Annotations["test/hearsay"] != "" || s.Paper; s.Hearsay {
		return s
	}
	for i := range s.Gateways {
		if g := &s.Gateways[i]; g.Annotations["test/answers"] != "" {
			s.Waypoints[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = plan.WaypointFact{Answers: true}
		} else if why := g.Annotations["test/why"]; why != "" {
			s.Waypoints[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = plan.WaypointFact{Why: why}
		}
	}
	s.Shown = map[types.NamespacedName]plan.WitnessFact{}
	for _, q := range plan.WitnessesToAsk(s) {
		fact := plan.WitnessFact{Path: q.Path}
		fact.Why = q.Service.Annotations["test/hides"]
		fact.Answers = fact.Why == ""
		s.Shown[q.Waypoint] = fact
	}
	for _, q := range plan.ServicesToAsk(s) {
		if q.Service.Annotations["test/silent"] == "" {
			s.Served[types.NamespacedName{Namespace: q.Service.Namespace, Name: q.Service.Name}] = plan.WaypointFact{Answers: true}
		}
	}
	return s
}

func parsed(t testing.TB, raw []byte) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	text, err := yaml.YAMLToJSONStrict(raw)
	if err == nil {
		err = o.UnmarshalJSON(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func add[T v1alpha1.AmbientEdge | corev1.Namespace | corev1.Pod | corev1.Service | appsv1.Deployment | appsv1.DaemonSet |
	gatewayv1.Gateway | gatewayv1.GatewayClass | gatewayv1.HTTPRoute | gatewayv1beta1.ReferenceGrant | networkingv1.Ingress | networkingv1.IngressClass](t testing.TB, raw []byte, list *[]T) {
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
			how := fmt.Sprintf("delete=%v", s.Write.Delete)
			if s.Write.Force || s.Write.Restore {
				how += fmt.Sprintf(" force=%v restore=%v", s.Write.Force, s.Write.Restore)
			}
			if len(s.Write.TakeOver) > 0 {
				how += fmt.Sprintf(" takeOver=%v", s.Write.TakeOver)
			}
			if s.Write.Release {
				how += " release=true"
			}
			fmt.Fprintf(&b, "        %s %s\n", how, strings.ReplaceAll(strings.TrimSpace(string(fields)), "\n", "\n        "))
		}
	}
	for _, f := range p.Findings {
		fmt.Fprintf(&b, "%s %s %s %s: %s\n        fix: %s\n", f.Code, f.Severity, f.Object, f.Field, f.Message, f.Fix)
	}
	for _, g := range p.Gateways {
		fmt.Fprintf(&b, "gateway %+v\n", g)
	}
	for _, x := range p.Backends {
		fmt.Fprintf(&b, "backend {Service:%s Waypoint:%s Path:%s Policies:%v}", x.Service, x.Waypoint, x.Path, x.Policies)
		if len(x.Held) > 0 {
			fmt.Fprintf(&b, " held by %s", strings.Join(x.Held, ", "))
		}
		b.WriteString("\n")
	}
	for _, c := range p.Status(e).Conditions {
		fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}
