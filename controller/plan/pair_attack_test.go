package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy/policytest"
)

// unpairedWorld is pairDone before anything was written.
func unpairedWorld(t *testing.T) string {
	t.Helper()
	return strings.Replace(without(pairDone(t), "isthmus-pair-", "isthmus-witness-", "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, ", "", 1)
}

const otherWaypoint = `
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: shop, uid: w2, labels: {istio.io/waypoint-for: service}, annotations: {test/answers: "yes"}}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.8}], conditions: [{type: Programmed, status: "True"}]}}`

// edited is a world with texts in place of others, each of which is there.
func edited(t *testing.T, world string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(world, pairs[i]) {
			t.Fatalf("there is no %q", pairs[i])
		}
		world = strings.ReplaceAll(world, pairs[i], pairs[i+1])
	}
	return world
}

// TestPairRefusesWhatItCannotSee: pods that nobody knows, and a second waypoint.
func TestPairRefusesWhatItCannotSee(t *testing.T) {
	unselected := edited(t, unpairedWorld(t), "spec: {selector: {app: orders}, ports", "spec: {ports")
	canary := edited(t, unpairedWorld(t), "uid: s1, ", "uid: s1, labels: {istio.io/use-waypoint-canary: NAME}, annotations: {istio.io/use-waypoint-canary-weight: '50'}, ") + otherWaypoint
	for name, c := range map[string]struct{ world, object string }{
		"a Service without selector":                        {unselected, "AuthorizationPolicy istio-system/no-batch"},
		"and with a policy of its namespace alone":          {without(unselected, "name: no-batch"), "AuthorizationPolicy shop/callers"},
		"and with no policy that could be for its pods":     {without(unselected, "name: no-batch", "name: callers"), ""},
		"and with one that decides nothing":                 {edited(t, without(unselected, "name: no-batch"), "{name: callers, namespace: shop}", `{name: callers, namespace: shop, annotations: {istio.io/dry-run: "true"}}`), ""},
		"a share of requests that goes to another waypoint": {edited(t, canary, "NAME", "other"), "Service shop/orders"},
		"a canary that is the waypoint itself":              {edited(t, canary, "NAME", "waypoint"), ""},
		"a canary that is not there":                        {edited(t, canary, "NAME", "nobody"), ""},
	} {
		s := snapshot(t, c.world)
		p := plan.Make(s)
		list := said(p, v1alpha1.FindingVoided)
		refused := slices.ContainsFunc(list, func(f v1alpha1.Finding) bool { return f.Object == c.object && f.Fix != "" })
		wire := stepOf(p, plan.VerbWire, "Service shop/orders")
		if c.object == "" && (len(list) > 0 || wire.State == v1alpha1.StepHeld) || c.object != "" && (!refused || wire.State != v1alpha1.StepHeld) {
			t.Errorf("%s: %s", name, describe(p, s.Edge))
		}
	}
}

// TestAListOfSomePodsAdmitsAtThese: pods of the Service that come later may have no list, and are not to get one.
func TestAListOfSomePodsAdmitsAtThese(t *testing.T) {
	tiered := edited(t, unpairedWorld(t), "name: orders-1, namespace: shop, labels: {app: orders}", "name: orders-1, namespace: shop, labels: {app: orders, tier: a}")
	const callers = "{name: callers, namespace: shop}, spec: {selector: {matchLabels: {app: orders}}"
	for selector, want := range map[string]string{
		"selector: {matchLabels: {app: orders, tier: a}}": "map[app:orders tier:a]",
		"selector: {matchLabels: {tier: a}}":              "map[app:orders tier:a]",
		"selector: {matchLabels: {app: orders}}":          "map[app:orders]",
		"action: ALLOW":                                   "map[app:orders]",
	} {
		p := plan.Make(snapshot(t, edited(t, tiered, callers, "{name: callers, namespace: shop}, spec: {"+selector)))
		if w := wantedBy(p, admitTwin); w == nil || !strings.Contains(fmt.Sprint(w.Fields), "matchLabels:"+want) {
			t.Errorf("%s: the waypoint is admitted by %+v; findings %+v", selector, w, p.Findings)
		}
	}
}

// TestTheWaypointOfBeforeStaysAdmitted until the new one is seen to serve the Service: ztunnels that have not heard of it send to the one of before.
func TestTheWaypointOfBeforeStaysAdmitted(t *testing.T) {
	both := edited(t, without(pairDone(t), "isthmus-witness-"), "name: waypoint}, authorization", "name: other}, authorization",
		"labels: {istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply", "labels: {istio.io/use-waypoint: other}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply",
		"principals: [cluster.local/ns/shop/sa/waypoint]}}], to", "principals: [cluster.local/ns/shop/sa/intruder, cluster.local/ns/shop/sa/other, cluster.local/ns/shop/sa/waypoint]}}], to") + otherWaypoint
	s := snapshot(t, both)
	s.Served = nil
	p := plan.Make(s)
	w := wantedBy(p, admitTwin)
	if w == nil || !strings.Contains(fmt.Sprint(w.Fields), "principals:[cluster.local/ns/shop/sa/other cluster.local/ns/shop/sa/waypoint]") {
		t.Errorf("before it is served by the new one the pods admit %+v", w)
	}
	if !p.Unpairs() {
		t.Error("nobody waits for ztunnels to hear of the new one")
	}
	p = plan.Make(snapshot(t, both))
	if w := wantedBy(p, admitTwin); w == nil || !strings.Contains(fmt.Sprint(w.Fields), "principals:[cluster.local/ns/shop/sa/other]") {
		t.Errorf("afterwards they admit %+v", w)
	}
	if p.Unpairs() {
		t.Error("it waits for something still")
	}
}

const moreService = "\n---\n{apiVersion: v1, kind: Service, metadata: {name: more, namespace: shop, uid: s3, labels: {istio.io/use-waypoint: waypoint}}, spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: 9090}]}, status: {conditions: [{type: istio.io/WaypointBound, status: \"True\"}]}}"

const guard = "isthmus-pair-more-a6cc6474-guard"

// TestAServiceThatComesLaterIsGuarded: it leads to the waypoint that the pods admit, and without us they would refuse that, whoever calls.
func TestAServiceThatComesLaterIsGuarded(t *testing.T) {
	p := plan.Make(snapshot(t, pairDone(t)+moreService))
	if s := policyStep(p, plan.VerbPair, guard); s.State != v1alpha1.StepNext || rulesOf(s) != "[map[to:[map[operation:map[ports:[80]]]]]]" || len(said(p, v1alpha1.FindingVoided)) == 0 {
		t.Errorf("its guard is %q, of %s; findings %+v", s.State, rulesOf(s), p.Findings)
	}
	if s := policyStep(p, plan.VerbUnpair, admitTwin); s.Verb != "" {
		t.Errorf("everybody would be cut off: %+v", s)
	}
	if p := plan.Make(snapshot(t, unpairedWorld(t)+moreService)); wantedBy(p, guard) != nil {
		t.Error("it is guarded where the pods admit nobody")
	}
	for name, more := range map[string]string{
		"led elsewhere":  edited(t, moreService, "use-waypoint: waypoint", "use-waypoint: another"),
		"of other pods":  edited(t, moreService, "selector: {app: orders}", "selector: {app: more}"),
		"of other ports": edited(t, moreService, "targetPort: 8080", "targetPort: 7070"),
	} {
		if p := plan.Make(snapshot(t, pairDone(t)+more)); wantedBy(p, guard) != nil || len(said(p, v1alpha1.FindingVoided)) > 0 {
			t.Errorf("%s: %s", name, describe(p, snapshot(t, pairDone(t)).Edge))
		}
	}

	stands := "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: " + guard + ", namespace: shop, uid: g1, generation: 1, labels: {isthmus.dev/owner: edge.public}, managedFields: [{manager: isthmus.dev/edge.public, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {}}}]}, spec: {targetRefs: [{kind: Service, name: more}], action: DENY, rules: [{to: [{operation: {ports: [\"80\"]}}]}]}, status: {conditions: [{type: WaypointAccepted, status: \"True\", reason: Accepted, observedGeneration: 1}]}}"
	if p := plan.Make(snapshot(t, pairDone(t)+moreService+stands)); policyStep(p, plan.VerbPair, guard).State != v1alpha1.StepDone || policyStep(p, plan.VerbUnpair, guard).Verb != "" {
		t.Errorf("it does not stand: %s", describe(p, snapshot(t, pairDone(t)).Edge))
	}
	gone := edited(t, moreService, "labels: {istio.io/use-waypoint: waypoint}", "labels: {a: b}", `status: "True"`, `status: "False"`)
	if p := plan.Make(snapshot(t, pairDone(t)+gone+stands)); policyStep(p, plan.VerbUnpair, guard).Write == nil {
		t.Errorf("it is not taken away with what it is for: %s", describe(p, snapshot(t, pairDone(t)).Edge))
	}
	// To undo, it goes when the pods admit the waypoint no more.
	for name, c := range map[string]struct {
		world string
		goes  bool
	}{"admitted": {pairDone(t), false}, "not any more": {without(pairDone(t), "-admit,"), true}} {
		s := snapshot(t, strings.Replace(without(c.world, "isthmus-lock-"), "labels: {istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]}", "}", 1)+moreService+stands)
		s.Services[0].Status.Conditions = nil
		now := metav1.Now()
		s.Edge.DeletionTimestamp = &now
		p := plan.Make(s)
		if w := policyStep(p, plan.VerbUnpair, guard).Write; (w != nil) != c.goes {
			t.Errorf("%s: %s", name, describe(p, s.Edge))
		}
	}
}

// ofAnother are the twins of another AmbientEdge, public2, with a list of its own.
func ofAnother(mode string, services, list string) string {
	meta := func(name string) string {
		return "{name: " + name + ", namespace: shop, uid: " + name + ", generation: 1, labels: {isthmus.dev/owner: edge.public2}, managedFields: [{manager: isthmus.dev/edge.public2, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {}}}]}"
	}
	return "\n---\n{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: public2, namespace: edge}, spec: {workloadRefs: [{kind: Deployment, name: gateway2}], mode: " + mode + ", waypoint: {policy: Use, name: waypoint}, authorization: {mode: Pair}}}" +
		"\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: " + meta("isthmus-pair-"+services+"-00000000-allow") + ", spec: {targetRefs: [{kind: Service, name: " + services + "}], action: ALLOW, rules: [{from: [{source: {principals: [" + list + "]}}]}]}}"
}

// TestTwinsOfAnotherEdge that follows are no matter; those that nobody keeps up let in whom the pods have ceased to.
func TestTwinsOfAnotherEdge(t *testing.T) {
	for mode, stale := range map[string]bool{"Manage": false, "Observe": true} {
		s := snapshot(t, pairDone(t)+ofAnother(mode, "orders", gatewayPrincipal+", cluster.local/ns/shop/sa/job, cluster.local/ns/x/sa/revoked"))
		p := plan.Make(s)
		is := slices.ContainsFunc(said(p, v1alpha1.FindingVoided), func(f v1alpha1.Finding) bool {
			return f.Severity == v1alpha1.SeverityError && strings.Contains(f.Message, "cluster.local/ns/x/sa/revoked")
		})
		if is != stale {
			t.Errorf("of one in mode %s: %s", mode, describe(p, s.Edge))
		}
	}
	// A Service of the same pods that another pairs answers as the pods do.
	s := snapshot(t, pairDone(t)+moreService+ofAnother("Manage", "more", gatewayPrincipal))
	if p := plan.Make(s); wantedBy(p, guard) != nil || len(said(p, v1alpha1.FindingVoided)) > 0 {
		t.Errorf("it is in the way: %s", describe(p, s.Edge))
	}
}

// TestCallersOfEveryTrustDomain: a namespace is that of any, and a principal of one.
func TestCallersOfEveryTrustDomain(t *testing.T) {
	world := without(unpairedWorld(t), "name: callers") + "\n---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: theirs, namespace: shop}, spec: {targetRefs: [{kind: Service, name: orders}], action: DENY, rules: [{from: [{source: {principals: [\"cluster.local/ns/batch/*\"]}}]}]}}"
	p := plan.Make(snapshot(t, world))
	if s := policyStep(p, plan.VerbPair, denyTwin); s.State != v1alpha1.StepNext {
		t.Errorf("who is of namespace batch of another trust domain gets in: %s", describe(p, snapshot(t, world).Edge))
	}
}

// TestCallersOfManyNamespaces, the last of which a waypoint reads otherwise than ztunnel.
func TestCallersOfManyNamespaces(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint("n", i))
	}
	world := edited(t, unpairedWorld(t), "principals: [cluster.local/ns/edge/sa/gateway]", "namespaces: [edge, "+strings.Join(names, ", ")+", 'a*b']")
	p := plan.Make(snapshot(t, world))
	if len(said(p, v1alpha1.FindingVoided)) == 0 || stepOf(p, plan.VerbWire, "Service shop/orders").State != v1alpha1.StepHeld {
		t.Errorf("namespace axb gets in: %s", describe(p, snapshot(t, world).Edge))
	}
}

// TestPairUnderAttack does things behind the controller's back while it pairs, in random worlds: policies come, go and change, twins too, consent is withdrawn and given
// again, pods lose their identity of the mesh for a while. When it is over, everybody gets what the policies of then give him, or the Service is not led there.
func TestPairUnderAttack(t *testing.T) {
	rounds, led := *worlds/2, 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 17))
		s := snapshot(t, stockAt(rng))
		s.Policies = randomPolicies(rng)
		d := newDataPlane(t, rng, s)
		var did []string
		for range 1 + rng.IntN(4) {
			d.walkFor(1 + rng.IntN(6))
			did = append(did, d.attack())
		}
		for i := range s.Namespaces {
			if o := &s.Namespaces[i]; o.Name == "shop" {
				o.Annotations = map[string]string{v1alpha1.AnnotationEdges: "edge/public"}
			}
		}
		for i := range s.Pods {
			s.Pods[i].Annotations = map[string]string{plan.AnnotationRedirection: "enabled"}
		}
		p := d.walk()
		var theirs []*securityv1.AuthorizationPolicy
		for _, o := range s.Policies {
			if o.Labels[v1alpha1.LabelOwner] == "" {
				theirs = append(theirs, o)
			}
		}
		if !d.led {
			sameAnswers(t, d, theirs, seed)(fmt.Sprint(did))
			continue
		}
		led++
		if slices.ContainsFunc(theirs, func(o *securityv1.AuthorizationPolicy) bool {
			return o.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW && len(o.Spec.GetTargetRefs()) == 0 && strings.Contains(o.Spec.String(), "ns/shop/sa/waypoint")
		}) {
			continue // a list that names the waypoint has it let in whom it wants
		}
		if p.Wrong() {
			d.nobodyMore(theirs, fmt.Sprint("seed ", seed, " ", did))
			continue
		}
		sameAnswers(t, d, theirs, seed)(fmt.Sprint(did))
	}
	t.Logf("of %d worlds %d are led to the waypoint", rounds, led)
	if led < rounds/10 {
		t.Error("these worlds are about too little")
	}
}

// attack does one thing behind the controller's back, and says what.
func (d *dataPlane) attack() string {
	heard := func(ours bool) (list []*securityv1.AuthorizationPolicy) {
		for _, p := range d.s.Policies {
			if d.policies[nameOf(p)] == p && (p.Labels[v1alpha1.LabelOwner] != "") == ours && !strings.HasPrefix(p.Name, "isthmus-witness-") {
				list = append(list, p)
			}
		}
		return list
	}
	remove := func(p *securityv1.AuthorizationPolicy) {
		d.s.Policies = slices.DeleteFunc(slices.Clone(d.s.Policies), func(o *securityv1.AuthorizationPolicy) bool { return o == p })
		delete(d.policies, nameOf(p))
	}
	put := func(p *securityv1.AuthorizationPolicy) {
		d.s.Policies = append(slices.Clone(d.s.Policies), p)
		d.policies[nameOf(p)] = p
	}
	pick := func(ours bool) *securityv1.AuthorizationPolicy {
		list := heard(ours)
		if len(list) == 0 {
			return nil
		}
		return policytest.Pick(d.rng, list)
	}
	switch what := d.rng.IntN(6); what {
	case 0, 1:
		if p := pick(what == 0); p != nil {
			remove(p)
			return "delete " + p.Name
		}
	case 2:
		if p := pick(true); p != nil { // somebody edits a twin
			d.uid++
			o := p.DeepCopy()
			o.Generation, o.Spec.Rules = int64(d.uid), []*securityapi.Rule{{From: []*securityapi.Rule_From{{Source: &securityapi.Source{Namespaces: []string{"x"}}}}}}
			remove(p)
			put(o)
			return "edit " + p.Name
		}
	case 3:
		d.uid++
		p := randomPolicies(d.rng)[0]
		p.Name, p.UID = fmt.Sprint("late-", d.uid), types.UID(fmt.Sprint("late-", d.uid))
		if d.rng.IntN(2) == 0 {
			p.Namespace, p.Spec.TargetRefs = "shop", nil
			p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": "orders"}}
		}
		put(p)
		return fmt.Sprintf("add %s %v", p.Name, &p.Spec)
	case 4:
		for i := range d.s.Namespaces {
			if o := &d.s.Namespaces[i]; o.Name == "shop" {
				o.Annotations = nil
			}
		}
		return "withdraw consent"
	case 5:
		for i := range d.s.Pods {
			if o := &d.s.Pods[i]; o.Namespace == "shop" {
				o.Annotations = nil
			}
		}
		return "take pods out"
	}
	return "nothing"
}

// nobodyMore holds that whom the pods refuse does not get in by the waypoint.
func (d *dataPlane) nobodyMore(theirs []*securityv1.AuthorizationPolicy, after string) {
	d.t.Helper()
	then, now := enforcing(theirs, d.s), d.now()
	waypoint := now.behind(orders, true)
	for _, id := range pairCallers() {
		for pod := range 2 {
			for _, c := range []call{{id, 80, 8080, pod}, {id, 81, 8081, pod}} {
				if was, is := then.way(c, nil).String(), now.way(c, waypoint).String(); was == "deny" && is != "deny" {
					d.t.Fatalf("%s: %s to port %d of pod %d got %s, and gets %s\n%s", after, c.id, c.port, c.pod, was, is, describe(plan.Make(d.s), d.s.Edge))
				}
			}
		}
	}
}
