package plan_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// golden is the input of a golden plan, with texts replaced: old and new, in turn.
func golden(t *testing.T, name string, otherwise ...string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), separator)
	for i := 0; i+1 < len(otherwise); i += 2 {
		if !strings.Contains(input, otherwise[i]) {
			t.Fatalf("there is no %q in %s", otherwise[i], name)
		}
		input = strings.ReplaceAll(input, otherwise[i], otherwise[i+1])
	}
	return input
}

func said(p *plan.Plan, code string) (list []v1alpha1.Finding) {
	for _, f := range p.Findings {
		if f.Code == code {
			list = append(list, f)
		}
	}
	return list
}

// TestWhoDoesNotConsentStopsNobody has a namespace without consent do what it can with what is its own.
func TestWhoDoesNotConsentStopsNobody(t *testing.T) {
	const (
		mine     = "{name: mine, namespace: tenant, uid: t1}}"
		pod      = "---\n{apiVersion: v1, kind: Pod, metadata: {name: mine-1, namespace: tenant, labels: {app: mine}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: mine}}\n"
		waypoint = "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: tenant, uid: w2, labels: {istio.io/waypoint-for: FOR}, annotations: {test/answers: 'yes'}}, spec: {gatewayClassName: CLASS}, status: {addresses: [{value: 10.96.0.8}], conditions: [{type: Programmed, status: 'True'}]}}\n"
		policies = "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: tenant}, spec: {selector: {matchLabels: {app: mine}}, action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}]}]}}\n" +
			"---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: isthmus-lock-mine-a6cc6474, namespace: tenant}, spec: {selector: {matchLabels: {app: mine}}, action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}], to: [{operation: {ports: ['8080']}}]}]}}\n"
	)
	for name, c := range map[string]struct{ use, address, class, reach string }{
		"policies at its pods":        {"waypoint", "10.96.0.1", "istio-waypoint", "service"},
		"a waypoint of another class": {"waypoint", "10.96.0.1", "other", "service"},
		"a waypoint for workloads":    {"waypoint", "10.96.0.1", "istio-waypoint", "workload"},
		"a waypoint that is not":      {"nobody", "10.96.0.1", "istio-waypoint", "service"},
		"no waypoint":                 {"none", "10.96.0.1", "istio-waypoint", "service"},
		"a headless Service":          {"waypoint", "None", "istio-waypoint", "service"},
	} {
		for _, mode := range []string{"", "  authorization: {mode: Lock}\n"} {
			input := golden(t, "a-tenant-without-consent-stops-nobody",
				"  waypoint: {policy: Create, name: waypoint}\n", "  waypoint: {policy: Create, name: waypoint}\n"+mode,
				mine, "{name: mine, namespace: tenant, uid: t1, labels: {istio.io/use-waypoint: "+c.use+"}}, spec: {clusterIP: "+c.address+", selector: {app: mine}, ports: [{port: 80, targetPort: 8080}]}}")
			p := plan.Make(snapshot(t, input+strings.NewReplacer("CLASS", c.class, "FOR", c.reach).Replace(waypoint)+pod+policies))
			if w := stepsOf(p, "Service shop/orders")[plan.VerbWire]; p.Blocked() || w.Write == nil || slices.ContainsFunc(p.Findings, func(f v1alpha1.Finding) bool {
				return strings.Contains(f.Object, "tenant") && f.Code != v1alpha1.FindingNoConsent
			}) {
				t.Errorf("%s %s: the others are stopped: %+v", name, mode, p.Findings)
			}
			if w := stepsOf(p, "Service tenant/mine")[plan.VerbWire]; w.Write != nil || c.use != "waypoint" && w.State != v1alpha1.StepHeld {
				t.Errorf("%s %s: its step is %s: %s", name, mode, w.State, w.Reason)
			}
		}
	}
}

// TestATakenLockNameStopsNobody: the name of a lock can be known beforehand.
func TestATakenLockNameStopsNobody(t *testing.T) {
	locks := func(s *plan.Snapshot) *plan.Snapshot {
		s.Edge.Spec.Authorization = &v1alpha1.Authorization{Mode: v1alpha1.AuthorizationLock}
		asked(s)
		return s
	}
	for name, spec := range map[string]string{
		"of no pods":        `{action: DENY, selector: {matchLabels: {app: none}}, rules: [{from: [{source: {principals: [x]}}]}]}}`,
		"of the lock's own": `{action: DENY, selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}], to: [{operation: {ports: ["80"]}}]}]}}`,
	} {
		more := `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: isthmus-lock-orders-a6cc6474, namespace: NS}, spec: ` + spec
		s := locks(inTenants(t, strings.Replace(tenant, unwired, wired, 1), []string{unwired, wired}, more))
		p := plan.Make(s)
		f := said(p, v1alpha1.FindingNotLocked)
		if p.Blocked() || p.Wrong() || len(f) != 1 || f[0].Object != "Service b/orders" || f[0].Severity != v1alpha1.SeverityWarning || !strings.Contains(f[0].Message, "b/isthmus-lock-orders-a6cc6474") {
			t.Errorf("%s: blocked %t, wrong %t: %+v", name, p.Blocked(), p.Wrong(), p.Findings)
		}
		for ns, want := range map[string]bool{"a": true, "b": false} {
			if lock := stepsOf(p, "AuthorizationPolicy "+ns+"/isthmus-lock-orders-a6cc6474")[plan.VerbLock]; (lock.Write != nil) != want {
				t.Errorf("%s: the lock in %s is %s: %s", name, ns, lock.State, lock.Reason)
			}
		}
		if c := meta.FindStatusCondition(p.Status(s.Edge).Conditions, v1alpha1.ConditionReady); c.Reason != v1alpha1.ReasonInProgress {
			t.Errorf("%s: Ready is %+v", name, c)
		}
	}
}

// TestWhatOnlyLooksLikeALockIsLookedAt: its name, and who has written it, are free to choose.
func TestWhatOnlyLooksLikeALockIsLookedAt(t *testing.T) {
	const rule = "[{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}]}]"
	is := golden(t, "policy-at-pods-denies-by-source")
	if !strings.Contains(is, rule) {
		t.Fatalf("there is no %s in %s", rule, is)
	}
	for name, rules := range map[string]string{
		"no ports":                 rule,
		"a namespace":              `[{from: [{source: {namespaces: [batch]}}], to: [{operation: {ports: ["8080"]}}]}]`,
		"and a namespace":          `[{from: [{source: {principals: [cluster.local/ns/batch/sa/job], namespaces: [batch]}}], to: [{operation: {ports: ["8080"]}}]}]`,
		"any of a namespace":       `[{from: [{source: {principals: ["cluster.local/ns/batch/*"]}}], to: [{operation: {ports: ["8080"]}}]}]`,
		"ports that it is not for": `[{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}], to: [{operation: {notPorts: ["9090"]}}]}]`,
		"a condition":              `[{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}], to: [{operation: {ports: ["8080"]}}], when: [{key: source.namespace, values: [batch]}]}]`,
		"two rules":                `[{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}], to: [{operation: {ports: ["8080"]}}]}, {from: [{source: {namespaces: [batch]}}]}]`,
	} {
		p := plan.Make(snapshot(t, golden(t, "policy-at-pods-denies-by-source", rule, rules, "{name: no-batch, namespace: shop}",
			"{name: isthmus-lock-x, namespace: shop, managedFields: [{manager: isthmus.dev/x.y, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {}}}]}")))
		if len(said(p, v1alpha1.FindingVoided)) != 1 {
			t.Errorf("%s: nothing is found: %+v", name, p.Findings)
		}
	}
}

// TestALockLooksAtServiceEntries: they lead to pods as Services do.
func TestALockLooksAtServiceEntries(t *testing.T) {
	const entry = "---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: orders, namespace: NS}, spec: {hosts: [orders.internal], workloadSelector: {labels: {app: APP}}, ports: [PORT], location: MESH_INTERNAL, resolution: STATIC}}\n"
	for name, c := range map[string]struct {
		ns, app, port string
		locked        bool
	}{
		"of the same pods and port":   {"shop", "orders", "{number: 8080, name: http, protocol: HTTP}", false},
		"by another port":             {"shop", "orders", "{number: 80, targetPort: 8080, name: http, protocol: HTTP}", false},
		"of another port":             {"shop", "orders", "{number: 8080, targetPort: 9090, name: http, protocol: HTTP}", true},
		"of other pods":               {"shop", "stock", "{number: 8080, name: http, protocol: HTTP}", true},
		"of those of another tenants": {"other", "orders", "{number: 8080, name: http, protocol: HTTP}", true},
	} {
		p := plan.Make(snapshot(t, golden(t, "lock-comes-last")+strings.NewReplacer("NS", c.ns, "APP", c.app, "PORT", c.port).Replace(entry)))
		lock := stepsOf(p, "AuthorizationPolicy shop/isthmus-lock-orders-a6cc6474")[plan.VerbLock]
		if f := said(p, v1alpha1.FindingNotLocked); (lock.Write != nil) != c.locked || (len(f) == 0) != c.locked || !c.locked && !strings.Contains(f[0].Message, "ServiceEntry shop/orders") {
			t.Errorf("%s: the lock is %s: %s; %+v", name, lock.State, lock.Reason, f)
		}
	}
}

// TestWhomPoliciesBeginToRefuseIsTold: who calls a Service from within the mesh goes by its waypoint too.
func TestWhomPoliciesBeginToRefuseIsTold(t *testing.T) {
	const (
		ledBefore = "labels: {istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]}"
		caller    = "---\n{apiVersion: v1, kind: Pod, metadata: {name: job-1, namespace: edge, labels: {app: job}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: job}}\n"
	)
	for name, c := range map[string]struct {
		rules, led, refuses string
	}{
		"it admits the gateway alone":    {"[{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]", "labels: {}}", "refused then: of a caller that it does not name, cluster.local/ns/edge/sa/job"},
		"it admits one of them":          {"[{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway, cluster.local/ns/edge/sa/job]}}]}]", "labels: {}}", "refused then: of a caller that it does not name"},
		"it admits others by the method": {`[{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}, {to: [{operation: {methods: [GET]}}]}]`, "labels: {}}", "depends on the request, of a caller that it does not name, cluster.local/ns/edge/sa/job"},
		"it admits everybody":            {"[{}]", "labels: {}}", ""},
		"it was led there before":        {"[{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]", ledBefore, ""},
	} {
		p := plan.Make(snapshot(t, golden(t, "lock-comes-last", "  authorization: {mode: Lock}\n", "", "rules: [{}]", "rules: "+c.rules, ledBefore, c.led)+caller))
		f := said(p, v1alpha1.FindingBegins)
		if p.Blocked() || (len(f) == 1) != (c.refuses != "") {
			t.Errorf("%s: %+v", name, p.Findings)
			continue
		}
		if c.refuses != "" && (f[0].Severity != v1alpha1.SeverityWarning || f[0].Object != "Service shop/orders" || !strings.Contains(f[0].Message, "AuthorizationPolicy shop/callers begins") || !strings.HasSuffix(f[0].Message, c.refuses)) {
			t.Errorf("%s: it says %s", name, f[0].Message)
		}
		if c.refuses != "" && stepsOf(p, "Service shop/orders")[plan.VerbWire].Write == nil {
			t.Errorf("%s: it is not wired", name)
		}
	}
}

// TestALockThatWillWaitIsToldBefore: pods that run when a Service is wired have to be started anew, and whoever reads the plan learns it.
func TestALockThatWillWaitIsToldBefore(t *testing.T) {
	is := plan.Make(snapshot(t, golden(t, "lock-waits-for-all-before")))
	f := said(is, v1alpha1.FindingNotLocked)
	if len(f) != 1 || f[0].Severity != v1alpha1.SeverityInfo || !strings.Contains(f[0].Message, "will wait until the pods of Deployment edge/gateway are started anew") || f[0].Fix != "kubectl rollout restart -n edge deployment gateway" {
		t.Errorf("it says %+v", is.Findings)
	}
	if f := said(plan.Make(snapshot(t, golden(t, "lock-comes-last"))), v1alpha1.FindingNotLocked); len(f) > 0 {
		t.Errorf("the lock may be set now, and %+v", f)
	}
}

// TestWhatWaitsIsNotBlocked: no error stands in the way.
func TestWhatWaitsIsNotBlocked(t *testing.T) {
	for _, name := range []string{"no-replicas", "lock-waits-for-connections-of-before"} {
		s := snapshot(t, golden(t, name))
		p := plan.Make(s)
		st := p.Status(s.Edge)
		if c := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady); p.Wrong() || c.Reason != v1alpha1.ReasonWaiting {
			t.Errorf("%s: Ready is %+v; %+v", name, c, p.Findings)
		}
		for _, b := range st.Backends {
			if none := st.Gateways[0].Pods == 0; none != (b.Path == "") {
				t.Errorf("%s: with %d pods the path is %q", name, st.Gateways[0].Pods, b.Path)
			}
		}
	}
}

// TestWithoutConsentStepsAreCounted: a Service that nothing is told of is one that is left.
func TestWithoutConsentStepsAreCounted(t *testing.T) {
	p := plan.Make(snapshot(t, golden(t, "a-tenant-without-consent-stops-nobody", ", {namespace: tenant, name: mine}", "",
		`, annotations: {isthmus.dev/edges: "edge/public"}`, "", "{policy: Create, name: waypoint}", "{policy: Use}",
		", labels: {istio.io/waypoint-for: service, isthmus.dev/owner: edge.public}", "")))
	if w := stepsOf(p, "Service shop/orders")[plan.VerbWire]; w.State != v1alpha1.StepHeld || w.Reason != "ISM302: no consent" || p.Done() {
		t.Errorf("the step is %+v; %+v", w, p.Steps)
	}
}
