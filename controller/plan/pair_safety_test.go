package plan_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// pairDone is a world in which a pairing is done: a list that names the gateway, a DENY of namespace batch in the root namespace, and all twins.
func pairDone(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/pair-done.yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), separator)
	return strings.TrimSpace(input)
}

const (
	denyTwin  = "isthmus-pair-orders-a6cc6474-deny"
	allowTwin = "isthmus-pair-orders-a6cc6474-allow"
	admitTwin = "isthmus-pair-orders-a6cc6474-admit"
)

// without is a world without the documents that have a text in them.
func without(world string, texts ...string) string {
	docs := strings.Split(world, "\n---\n")
	return strings.Join(slices.DeleteFunc(docs, func(doc string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(doc, text) })
	}), "\n---\n")
}

// stepOf is the step of an object, or one that is empty.
func stepOf(p *plan.Plan, verb, object string) plan.Step {
	for _, s := range p.Steps {
		if s.Verb == verb && s.Object == object {
			return s
		}
	}
	return plan.Step{}
}

func policyStep(p *plan.Plan, verb, name string) plan.Step {
	return stepOf(p, verb, "AuthorizationPolicy shop/"+name)
}

// wantedBy is the write of a policy, now or later.
func wantedBy(p *plan.Plan, name string) *plan.Write {
	for _, w := range p.Wanted() {
		if w.Key.Name == name {
			return w
		}
	}
	return nil
}

// rulesOf are those of a policy that a step writes, as text.
func rulesOf(s plan.Step) string {
	if s.Write == nil {
		return "nothing is written"
	}
	spec, _ := s.Write.Fields["spec"].(map[string]any)
	return fmt.Sprint(spec["rules"])
}

// TestALateDenyGetsItsTwin: where nothing of ours stands at a Service that we have led to its waypoint, and a DENY comes, or its twin was deleted.
func TestALateDenyGetsItsTwin(t *testing.T) {
	open := without(pairDone(t), "isthmus-pair-", "isthmus-witness-", "name: callers", "name: no-batch")
	const deny = "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: late, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}, action: DENY, rules: [{from: [{source: {namespaces: [batch]}}]}]}}"
	const list = "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: list, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway, cluster.local/ns/shop/sa/waypoint]}}]}]}}"
	for name, world := range map[string]string{
		"open before":                          open + deny,
		"with a list that admits the waypoint": open + list + deny,
		"and others have the label too":        strings.Replace(open, "managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]}, spec: {selector", "managedFields: [{manager: kubectl, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}, {manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]}, spec: {selector", 1) + deny,
	} {
		p := plan.Make(snapshot(t, world))
		if s := policyStep(p, plan.VerbPair, denyTwin); s.State != v1alpha1.StepNext || rulesOf(s) != "[map[from:[map[source:map[namespaces:[batch]]]]]]" {
			t.Errorf("%s: the twin is %q, of %s; findings %+v", name, s.State, rulesOf(s), p.Findings)
		}
		if s := policyStep(p, plan.VerbPair, allowTwin); s.Verb != "" {
			t.Errorf("%s: whom a list lets in by the waypoint, as somebody wants, would be refused: %+v", name, s)
		}
	}
	// A list that does not name the waypoint is for callers, though it has the waypoint among them.
	for _, source := range []string{"namespaces: [edge, shop]", "notNamespaces: [batch]", "principals: [\"cluster.local/ns/shop/*\"]"} {
		world := open + "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: list, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {" + source + "}}, {source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}"
		if s := policyStep(plan.Make(snapshot(t, world)), plan.VerbPair, allowTwin); s.State != v1alpha1.StepNext {
			t.Errorf("%s: everybody gets in by the waypoint: %+v", source, s)
		}
	}
	s := strings.Replace(open+deny, "manager: isthmus.dev/edge.public, operation: Apply", "manager: kubectl, operation: Apply", 1)
	if p := plan.Make(snapshot(t, s)); policyStep(p, plan.VerbPair, denyTwin).Verb != "" || len(said(p, v1alpha1.FindingVoided)) == 0 {
		t.Error("a Service that others lead is not left alone")
	}
}

// TestWhatIsRevokedEndsBesideAnObstacle: something that a waypoint cannot have comes to the pods, and a caller goes.
func TestWhatIsRevokedEndsBesideAnObstacle(t *testing.T) {
	world := strings.Replace(pairDone(t), ", {source: {serviceAccounts: [job]}}", "", 1)
	if world == pairDone(t) {
		t.Fatal("nobody is revoked")
	}
	policy := func(name, spec string) string {
		return "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: " + name + ", namespace: shop}, spec: " + spec + "}"
	}
	for name, c := range map[string]struct{ more, allow, deny string }{
		"a list by address":      {policy("by-address", "{selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}"), "gateway", ""},
		"a DENY by address":      {policy("by-address", "{selector: {matchLabels: {app: orders}}, action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}, {from: [{source: {namespaces: [late], ipBlocks: [10.0.0.0/8]}}]}]}"), "gateway", "late"},
		"a DENY of the waypoint": {policy("no-waypoint", "{selector: {matchLabels: {app: orders}}, action: DENY, rules: [{from: [{source: {namespaces: [late]}}]}, {from: [{source: {namespaces: [shop]}}]}]}"), "gateway", "late"},
		"pods of two kinds": {policy("some", "{selector: {matchLabels: {version: v2}}, action: DENY, rules: [{from: [{source: {namespaces: [late]}}]}]}") +
			"\n---\n{apiVersion: v1, kind: Pod, metadata: {name: orders-2, namespace: shop, labels: {app: orders, version: v2}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}}", "gateway", "late"},
		"a waypoint for pods too": {"", "gateway", ""},
	} {
		w := world + c.more
		if c.more == "" {
			w = strings.Replace(w, "istio.io/waypoint-for: service", "istio.io/waypoint-for: all", 1)
		}
		p := plan.Make(snapshot(t, w))
		if len(said(p, v1alpha1.FindingVoided)) == 0 {
			t.Errorf("%s: it is no obstacle: %+v", name, p.Findings)
		}
		if s := policyStep(p, plan.VerbPair, allowTwin); s.State != v1alpha1.StepNext || !strings.Contains(rulesOf(s), c.allow) || strings.Contains(rulesOf(s), "job") || strings.Contains(rulesOf(s), "ipBlocks") {
			t.Errorf("%s: the list is %q, of %s", name, s.State, rulesOf(s))
		}
		if s := policyStep(p, plan.VerbPair, denyTwin); c.deny != "" && (s.State != v1alpha1.StepNext || !strings.Contains(rulesOf(s), c.deny) || !strings.Contains(rulesOf(s), "batch") || strings.Contains(rulesOf(s), "ipBlocks")) {
			t.Errorf("%s: what denies is %q, of %s", name, s.State, rulesOf(s))
		}
		if s := policyStep(p, plan.VerbUnpair, admitTwin); s.Verb != "" {
			t.Errorf("%s: everybody would be cut off: %+v", name, s)
		}
	}
}

// TestTwinsStayWhilePodsAreGone: policies select pods by a label that the Service does not.
func TestTwinsStayWhilePodsAreGone(t *testing.T) {
	world := strings.NewReplacer("labels: {app: orders}, annotations", "labels: {app: orders, tier: shop}, annotations",
		"{name: callers, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}", "{name: callers, namespace: shop}, spec: {selector: {matchLabels: {tier: shop}}",
		"spec: {selector: {matchLabels: {app: orders}}, action: ALLOW", "spec: {selector: {matchLabels: {app: orders, tier: shop}}, action: ALLOW").Replace(pairDone(t))
	if p := plan.Make(snapshot(t, world)); !p.Done() {
		t.Fatalf("it is not done with pods: %s", describe(p, snapshot(t, world).Edge))
	}
	for name, w := range map[string]string{
		"none":                  without(world, "kind: Pod, metadata: {name: orders-1"),
		"none that is captured": strings.Replace(world, "tier: shop}, annotations: {ambient.istio.io/redirection: enabled}", "tier: shop}", 1),
	} {
		p := plan.Make(snapshot(t, w))
		for _, s := range p.Steps {
			if s.Verb == plan.VerbUnpair || s.Write != nil && strings.HasPrefix(s.Write.Key.Name, "isthmus-pair-") {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
	// Before anything stands nobody knows what such a policy is for.
	w := strings.Replace(without(world, "kind: Pod, metadata: {name: orders-1", "isthmus-pair-", "isthmus-witness-", "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, ", "", 1)
	if p := plan.Make(snapshot(t, w)); stepOf(p, plan.VerbWire, "Service shop/orders").State != v1alpha1.StepHeld || len(said(p, v1alpha1.FindingVoided)) == 0 {
		t.Errorf("a Service without pods is led to its waypoint, though nobody knows which policies hold: %+v", p.Findings)
	}
}

// TestADryTwinIsNone: istiod has a waypoint note what it would do.
func TestADryTwinIsNone(t *testing.T) {
	for _, name := range []string{denyTwin, allowTwin, admitTwin, "isthmus-lock-orders-a6cc6474"} {
		for value, dry := range map[string]bool{"true": true, "1": true, "false": false, "yes": false} {
			world := strings.Replace(pairDone(t), "{name: "+name+", namespace: shop,", "{name: "+name+`, namespace: shop, annotations: {istio.io/dry-run: "`+value+`"},`, 1)
			p := plan.Make(snapshot(t, world))
			verb := plan.VerbPair
			if strings.HasPrefix(name, "isthmus-lock") {
				verb = plan.VerbLock
			}
			s := policyStep(p, verb, name)
			if (s.State == v1alpha1.StepDone) == dry {
				t.Errorf("%s with dry-run %s is %s", name, value, s.State)
			}
			if w := wantedBy(p, name); dry && (w == nil || !w.Force || !strings.Contains(fmt.Sprint(w.Fields), "annotations:map[istio.io/dry-run:<nil>]")) {
				t.Errorf("%s: the annotation is not taken away: %+v", name, w)
			}
		}
	}
}

// TestASelectorLosesAKey: what is applied leaves what was created.
func TestASelectorLosesAKey(t *testing.T) {
	for _, name := range []string{admitTwin, "isthmus-lock-orders-a6cc6474"} {
		docs := strings.Split(pairDone(t), "\n---\n")
		for i := range docs {
			if strings.Contains(docs[i], "{name: "+name) {
				docs[i] = strings.Replace(docs[i], "matchLabels: {app: orders}", "matchLabels: {app: orders, tier: old}", 1)
			}
		}
		p := plan.Make(snapshot(t, strings.Join(docs, "\n---\n")))
		w := wantedBy(p, name)
		if w == nil || !strings.Contains(fmt.Sprint(w.Fields), "matchLabels:map[app:orders tier:<nil>]") {
			t.Errorf("%s: %+v", name, w)
			continue
		}
		if fields := fmt.Sprint(w.Fields); strings.Contains(fields, "action:<nil>") || strings.Contains(fields, "rules:<nil>") {
			t.Errorf("%s: it takes away what is wanted: %s", name, fields)
		}
	}
}

// waypointRun is what istiod makes of a waypoint, and a pod of it.
const waypointRun = `
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: waypoint, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}, ownerReferences: [{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: waypoint, uid: w1}]}, spec: {selector: {matchLabels: {a: b}}, template: {spec: {serviceAccountName: ACCOUNT}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: waypoint-abc-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: waypoint-abc, uid: r1}]}, spec: {serviceAccountName: ACCOUNT}}`

// TestTheWaypointIsKnownByItsDeployment, and not by the label of pods.
func TestTheWaypointIsKnownByItsDeployment(t *testing.T) {
	fresh := strings.Replace(without(pairDone(t), "isthmus-pair-", "isthmus-witness-", "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, ", "", 1)
	posing := "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: poser, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: other}}"
	same := "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: same, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {serviceAccountName: edge-of-shop}}"
	run := strings.ReplaceAll(waypointRun, "ACCOUNT", "edge-of-shop")
	for name, c := range map[string]struct{ more, admits, why string }{
		"a Deployment of its own":    {run, "cluster.local/ns/shop/sa/edge-of-shop", ""},
		"nothing yet":                {"", "cluster.local/ns/shop/sa/waypoint", ""},
		"a pod with its label":       {run + posing, "", "Pod shop/poser"},
		"and no Deployment":          {posing, "", "Pod shop/poser"},
		"a pod of nobody's":          {run + same, "", "Pod shop/same"},
		"a Deployment of no Gateway": {strings.Replace(run, "uid: w1", "uid: w0", 1), "", "Pod shop/waypoint-abc-1"},
	} {
		p := plan.Make(snapshot(t, fresh+c.more))
		list := said(p, v1alpha1.FindingVoided)
		switch s := policyStep(p, plan.VerbPair, allowTwin); {
		case c.why != "" && (!slices.ContainsFunc(list, func(f v1alpha1.Finding) bool { return strings.Contains(f.Message, c.why) }) || s.Verb != ""):
			t.Errorf("%s: findings are %+v, the list's step %+v", name, list, s)
		case c.why == "" && s.Verb == "":
			t.Errorf("%s: findings are %+v", name, p.Findings)
		}
		if c.admits != "" {
			if w := wantedBy(p, admitTwin); w == nil || !strings.Contains(fmt.Sprint(w.Fields), c.admits) {
				t.Errorf("%s: %s is not admitted: %+v", name, c.admits, w)
			}
		}
	}
}

// TestWhatElseAWaypointForwards: whoever calls that would be admitted with the waypoint.
func TestWhatElseAWaypointForwards(t *testing.T) {
	fresh := strings.Replace(without(pairDone(t), "isthmus-pair-", "isthmus-witness-", "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, ", "", 1)
	front := "\n---\n{apiVersion: v1, kind: Service, metadata: {name: front, namespace: shop, labels: {istio.io/use-waypoint: WAYPOINT}}, spec: {selector: {app: front}, ports: [{port: 80}]}}"
	route := "\n---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {parentRefs: [{group: '', kind: Service, name: PARENT}], rules: [RULE]}}"
	entry := "\n---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop, labels: {istio.io/use-waypoint: WAYPOINT}}, spec: {hosts: [e.test], resolution: STATIC, ports: [{number: 80}], SPEC}}"
	with := func(text string, pairs ...string) string {
		return strings.NewReplacer(append(pairs, "WAYPOINT", "waypoint")...).Replace(text)
	}
	const seen = "# seen"
	known := func(text string) string { return seen + text }
	const sends, copies = "{backendRefs: [{name: orders, port: 80}]}", "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: orders, port: 80}}}], backendRefs: [{name: front, port: 80}]}"
	for name, c := range map[string]struct {
		more string
		is   bool
	}{
		"a route of another Service":            {with(front+route, "PARENT", "front", "RULE", sends), true},
		"one that copies":                       {with(front+route, "PARENT", "front", "RULE", copies), true},
		"a route of itself":                     {with(front+route, "PARENT", "orders", "RULE", sends), false},
		"of a Service that is led elsewhere":    {with(front+route, "WAYPOINT", "another", "PARENT", "front", "RULE", sends), false},
		"a route to others":                     {with(front+route, "PARENT", "front", "RULE", "{backendRefs: [{name: front, port: 80}]}"), false},
		"a TCPRoute":                            {with(front+"\n---\n{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: TCPRoute, metadata: {name: r, namespace: shop}, spec: {parentRefs: [{group: '', kind: Service, name: front}], rules: [RULE]}}", "RULE", sends), true},
		"a route of the waypoint":               {with("\n---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {parentRefs: [{name: waypoint}], rules: [RULE]}}", "RULE", sends), true},
		"a Service without selector":            {with("\n---\n{apiVersion: v1, kind: Service, metadata: {name: by-hand, namespace: shop, labels: {istio.io/use-waypoint: WAYPOINT}}, spec: {ports: [{port: 80}]}}"), true},
		"one that is led elsewhere":             {with("\n---\n{apiVersion: v1, kind: Service, metadata: {name: by-hand, namespace: shop, labels: {istio.io/use-waypoint: WAYPOINT}}, spec: {ports: [{port: 80}]}}", "WAYPOINT", "another"), false},
		"a ServiceEntry that selects them":      {with(entry, "SPEC", "workloadSelector: {labels: {app: orders}}"), true},
		"a ServiceEntry with addresses":         {with(entry, "SPEC", "endpoints: [{address: 10.0.0.7}]"), true},
		"one with a pod's address":              {known(with(entry, "SPEC", "endpoints: [{address: 10.0.0.5}]")), true},
		"one with an address of nobody's here":  {known(with(entry, "SPEC", "endpoints: [{address: 10.0.0.7}]")), false},
		"one with the Service's address":        {known(with(entry, "SPEC", "endpoints: [{address: 10.96.0.1}]")), true},
		"one with another Service's of theirs":  {known(with(entry, "SPEC", "endpoints: [{address: 10.96.0.2}]")) + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: more, namespace: shop}, spec: {clusterIP: 10.96.0.2, selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}}", true},
		"one with that of a load balancer":      {known(with(entry, "SPEC", "endpoints: [{address: 192.0.2.1}]")) + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: more, namespace: shop}, spec: {type: LoadBalancer, clusterIP: 10.96.0.2, selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}}", true},
		"one of IPv6":                           {known(with(entry, "SPEC", "endpoints: [{address: 'fd00::7'}]")), true},
		"a ServiceEntry with a name":            {with(entry, "SPEC", "endpoints: [{address: orders.shop.svc.cluster.local}]"), true},
		"a ServiceEntry of another's":           {with(entry, "SPEC", "endpoints: [{address: api.example.com}]"), false},
		"a ServiceEntry that is led elsewhere":  {with(entry, "WAYPOINT", "another", "SPEC", "endpoints: [{address: 10.0.0.7}]"), false},
		"a Service of the same pods, led there": {with("\n---\n{apiVersion: v1, kind: Service, metadata: {name: more, namespace: shop, labels: {istio.io/use-waypoint: WAYPOINT}}, spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}}"), true},
		"nothing":                               {"", false},
	} {
		world := fresh
		if more, is := strings.CutPrefix(c.more, seen); is { // where the addresses of pods are known
			world, c.more = strings.NewReplacer("spec: {serviceAccountName: orders}}", "spec: {serviceAccountName: orders}, status: {podIP: 10.0.0.5}}", "spec: {selector: {app: orders}, ports", "spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports").Replace(fresh), more
		}
		p := plan.Make(snapshot(t, world+c.more))
		list := said(p, v1alpha1.FindingVoided)
		if is := slices.ContainsFunc(list, func(f v1alpha1.Finding) bool { return f.Object == "Service shop/orders" }); is != c.is {
			t.Errorf("%s: findings are %+v", name, p.Findings)
		}
	}
}

// TestAccountsOfTenantsAreNoObstacle to others: one tenant's pods have more accounts than are looked at, and his policies name as many.
func TestAccountsOfTenantsAreNoObstacle(t *testing.T) {
	fresh := strings.Replace(without(pairDone(t), "isthmus-pair-", "isthmus-witness-", "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, ", "", 1)
	fresh = strings.Replace(fresh, "[{namespace: shop, name: orders}]", "[{namespace: shop, name: orders}, {namespace: tenant, name: many}]", 1) + `
---
{apiVersion: v1, kind: Namespace, metadata: {name: tenant, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "edge/public"}}}
---
{apiVersion: v1, kind: Service, metadata: {name: many, namespace: tenant, uid: s2}, spec: {selector: {app: many}, ports: [{port: 80, targetPort: 8080}]}}`
	s := snapshot(t, fresh)
	for i := range 2100 {
		p := plan.Pod{Spec: plan.PodSpec{ServiceAccountName: fmt.Sprint("sa-", i)}}
		p.Namespace, p.Name, p.Labels = "tenant", fmt.Sprint("many-", i), map[string]string{"app": "many"}
		p.Annotations = map[string]string{plan.AnnotationRedirection: "enabled"}
		s.Pods = append(s.Pods, p)
	}
	if p := plan.Make(s); len(said(p, v1alpha1.FindingVoided)) > 0 || policyStep(p, plan.VerbPair, denyTwin).State != v1alpha1.StepNext {
		t.Errorf("the other tenant's Service is held back: %+v", p.Findings)
	}
}
