package v1alpha1_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// told is what the reference says of a code: severities, what is the matter and for whom, and what to do.
type told struct{ code, severities, matter, whose, fix string }

// Who has to act.
const (
	author   = "whoever writes the AmbientEdge"
	platform = "whoever runs the gateway or the cluster"
	owner    = "the owner of that namespace"
)

func findings() []told {
	return []told{
		{"ISM101", "Error", "A Service that the AmbientEdge or a route of its gateway names does not exist, or its namespace does not. It is held back; what was made for it stays.", author, "Create it, or correct the name."},
		{"ISM102", "Error", "There is no waypoint to use: neither Service nor namespace names one, the one that is named does not exist, or it is not for Services. " +
			"Requests would go past policies. The Services of that waypoint are held back.", author, "Set `spec.waypoint` to `{policy: Create, name: waypoint}`, or to `{policy: None}`; or give the waypoint `istio.io/waypoint-for: service`."},
		{"ISM103", "Error, Warning", "A waypoint is programmed and does not answer on its HBONE port with its identity. No Service is led to it; those that lead there get no answer, and nobody else waits for them. " +
			"It is an error where one that leads there already would be cut off by the gateway's enrolment: that waits, for all backends. So it is where the Service leads there by itself, and no waypoint is asked for; where its namespace does not consent it is a warning, and nobody waits for it.", owner,
			"Look at the waypoint's pods and at NetworkPolicies for port 15008."},
		{"ISM104", "Warning", "A route, or a Service that it names, does not count: the gateway has not said Accepted and ResolvedRefs of its present generation, or Accepted of the ListenerSet that it names, or a ReferenceGrant is missing. " +
			"What was done for it stays, and `Ready` is false where the gateway may send there. Where nobody has reported on it, the finding says who should.", owner, "See the route's conditions, and whether the controller that the finding names runs; create the ReferenceGrant that the finding names, or take the reference from the route."},
		{"ISM105", "Error, Warning", "The gateway has a UDPRoute, and the mesh does not carry UDP: what it sends goes unencrypted, past every waypoint and policy. It is an error where the gateway has no other routes: nothing would be wired, and all seem well.", author,
			"Close that way by a NetworkPolicy, or do without the route; where there is no other, set `spec.waypoint.policy` to None."},
		{"ISM201", "Warning", "A policy for a Service is enforced by nobody, as the Service leads to no waypoint: `spec.waypoint.policy` is None, or something else stops the AmbientEdge.", author, "Set `spec.waypoint.policy` to Create, or mend what stops it."},
		{"ISM205", "Error", "A policy at the pods of a Service tells callers apart, and behind a waypoint pods see the waypoint in place of the caller: what it denies would get in, or nobody would. " +
			"The Service is held back; where it comes after the wiring, `Ready` is false.", owner,
			"Have it at the waypoint too, with `targetRefs` to the Service, and then let the one at the pods admit the waypoint's principal: the finding has both."},
		{"ISM206", "Error, Warning", "Policies at the waypoint or at the pods refuse every request of the gateway. It is an error where that would begin with what is to be written, and the Service is held back. " +
			"Where the gateway gets through now, and would not once it is enrolled, the enrolment waits, for all backends: the finding says so. Where all is done it may be meant so, and is a warning; so it is where the namespace does not consent, and the enrolment, or a switch for the whole gateway, would cut it off: nobody waits for it.", owner, "Let them admit the gateway's principal, as the finding says."},
		{"ISM207", "Error", "A Service leads to a waypoint whose policies would end for it when it is led to another, as `spec.waypoint.name` asks. The Service is held back.", author,
			"Have these policies name the Service or the other waypoint too, or name the present waypoint in `spec.waypoint.name`."},
		{"ISM208", "Info", "What was made for this AmbientEdge, a waypoint or a switch, is needed by another AmbientEdge too, and stays. The last AmbientEdge that leads to a waypoint takes it away; a switch stays, without owner.", author, "Delete the switch when the other is gone too. A waypoint needs nothing."},
		{"ISM209", "Warning", "Policies with `targetRefs` begin to be enforced when a Service is led to its waypoint, for every caller in the mesh and not for the gateway alone; the finding says whom they refuse then, as far as it is seen. It goes when the Service is wired.", owner, "Let them admit who is to be admitted, before `spec.mode` is Manage."},
		{"ISM300", "Error", "The gateway that the AmbientEdge names does not exist, or nothing is known that labels its pods alone.", author, "Correct the name, or name its Deployment in `workloadRefs`."},
		{"ISM302", "Error, Warning, Info", "A namespace has not consented to what the AmbientEdge would write there: all of it is in one finding. Nothing is written there; where other namespaces consent, " +
			"theirs is done, and this is a warning. It is one too where consent was withdrawn: what was written stays, and is not mended. " +
			"Info: nothing has to be written. Without consent nothing is told of what is there.", owner,
			"Run the command that the finding prints: it keeps those who are consented to already. Or create the ReferenceGrant that it names."},
		{"ISM303", "Error", "Somebody else has set a field that is needed otherwise. It is never overwritten. A field of a Service, or of what is its own, holds back that Service; one of the gateway stops all.", platform,
			"Remove it there, or set it alike; that of a gateway's own switch may be named in `spec.takeOver`."},
		{"ISM304", "Error", "An AmbientEdge that is older, or manages already, has the gateway.", author, "Delete one of the two."},
		{"ISM305", "Error", "A gateway, or a pod of it, cannot be captured: it has the node's network.", platform, "Run it without, or set `spec.capture` to Native or None."},
		{"ISM306", "Error", "A pod of the gateway has a sidecar, and sidecars are left alone.", platform, "Run it without, or set `spec.capture` to None."},
		{"ISM307", "Error, Warning, Info", "Something depends on what would be taken away: a policy that nobody would enforce, what leads to the waypoint, or a waypoint of ours that lost its owner label. " +
			"Policies, RequestAuthentications, WasmPlugins, TrafficExtensions and EnvoyFilters with `targetRefs` count. Undo of it is held back, and the gateway stays in the mesh as long as a Service " +
			"leads to its waypoint; all else is undone. While the AmbientEdge lives it is a warning; so it is where a namespace does not consent any more, which undo leaves. Info: it was confirmed.", author,
			"Remove what depends on it, or confirm with the command that the finding prints. The confirmation is for this one AmbientEdge."},
		{"ISM308", "Warning", "Pods of a Service are not in the mesh: the last hop to them is plaintext, and no policy is enforced there.", owner, "Label their namespace `istio.io/dataplane-mode=ambient`."},
		{"ISM309", "Error", "The API server refuses a write: rights, an admission policy, a webhook or a quota. It is asked again, ever less often. A write for one Service holds back that Service, one of the gateway stops all.", platform, "Change what the finding names."},
		{"ISM310", "Error", "Somebody else took back what the controller wrote, more than once. It is not written again for ten minutes, and what depends on it waits as long.", platform,
			"Have that tool leave the field alone, or take the object from what the AmbientEdge is about."},
		{"ISM318", "Warning", "Of `authorization.pair.headers` Pin: a header by which a policy at the waypoint lets in is not pinned to the gateway, and who calls the Service from inside the mesh may write it. A client's own comes through by a route, " +
			"not all that the gateway does is understood or may be read, other pods have its service account, a policy names others who write the header, proxies write it to every request, or another AmbientEdge sends to the Service. A pin that stands stays, and the finding says so.", platform,
			"Do what the finding says: as a rule, take the header away at the gateway itself, before any route; or have the policy name the gateway's principal beside the header."},
		{"ISM320", "Error", "The gateway sends to pods, past waypoints, and has no switch that fits, or one that is not for us to set. One that is about a Service, or an object that names it, holds back that Service.", platform,
			"Do what the finding says, or set `spec.waypoint.policy` to None."},
		{"ISM321", "Error, Info", "The gateway's switch would do nothing: a setting, a version or a mode is missing. Info: that cannot be seen from the cluster.", platform, "Set or upgrade what the finding names."},
		{"ISM322", "Error", "A Service is headless, and cannot lead to a waypoint. It is held back.", author, "Let the route name a Service with an address, or set `spec.waypoint.policy` to None."},
		{"ISM323", "Warning", "The switch takes a feature away that is in use, as session affinity: the gateway sees one endpoint.", platform, "Do without, or leave the Service without a waypoint."},
		{"ISM324", "Warning", "What everybody should know of this kind of gateway: see [gateways](gateways.md).", platform, ""},
		{"ISM325", "Error, Info", "The gateway's pods are in another namespace, or are those of all Gateways of its class, as `mergeGateways` of Envoy Gateway has it; or (Info) serve other Gateways too, which come into the mesh with it.", author, "Make an AmbientEdge in the namespace that the finding names; for merged Gateways, label their pods as the finding says."},
		{"ISM326", "Warning", "A pod was captured after it had connected to its controller, which still sends it past waypoints.", platform, "With mode Manage it is rolled; else delete the pod."},
		{"ISM327", "Warning", "STRICT, or an AuthorizationPolicy, has the gateway's pods refuse those who call them from outside the mesh, its clients.", platform, "Annotate its pods `ambient.istio.io/bypass-inbound-capture=true`, or make an exception for them."},
		{"ISM328", "Error", "The controller of a gateway is named where the gateway itself is meant.", author, "Name the gateway."},
		{"ISM329", "Error, Warning", "A setting of somebody else wins over the switch for a part of what the gateway serves. One that is for routes holds back their Services; where those are none of the edge's, it is a warning.", platform, "Remove the field, or set it as the finding says."},
		{"ISM330", "Warning", "The gateway is about to be rolled, and its rollout stops all pods before it starts new ones, or several at a time.", platform, "Set its strategy to RollingUpdate."},
		{"ISM331", "Warning", "The gateway does not accept the policy that carries its switch: it goes on sending to pods.", platform, "See the conditions of the policy."},
		{"ISM332", "Error", "The GatewayClass of the gateway is not there: nobody can tell what kind it is.", platform, "Install the gateway's controller, or correct the name."},
		{"ISM333", "Warning", "Pods that came later are in the mesh by the label that was set for the gateway.", owner, "Label those that should stay outside `istio.io/dataplane-mode=none`."},
		{"ISM334", "Warning", "The gateway's pods run since before they were captured, or a Service was wired: connections from then go past the mesh or the waypoint.", platform, "Start them anew with the command that the finding prints."},
		{"ISM335", "Warning", "Mode Manage is asked for, or undo, and the controller that runs here only observes: nothing is written, nothing taken back.", platform,
			"Run the controller that manages, or set `spec.mode` to Observe."},
		{"ISM336", "Error", "The controller has no identity of the mesh, and cannot ask waypoints whether they answer. It writes nothing that it could not see to hold.", platform,
			"See the controller's log: what issues its identity has to be reachable and to accept its service account."},
		{"ISM337", "Warning, Info", "The pods of a Service are not locked for the gateway, as `authorization.mode` Lock asks: they serve another Service, the gateway's identity is not its own, " +
			"another policy has the lock's name, or connections from before would be cut. One that is there stays. Info: in a plan that is still to be carried out, that it will wait for the gateway's pods to be started anew.", platform, "Do what the finding says."},
		{"ISM338", "Error, Info", "Of `authorization.mode` Pair. Info: it does nothing for a Service beside what Lock does, as by its waypoint every caller gets the answer that its pods give him, or as somebody else leads it there. " +
			"Error: something else has the name of a policy or a Service that Pair would make, or policies of others at a waypoint keep it from showing whether twins are in force there; Services are held back.", owner, "Do what the finding says."},
		{"ISM339", "Warning", "The gateway sends to a DNS server, and its pods are captured so that ztunnel answers what it sends to port 53: wrong answers, refused updates, or a loop. A gateway that sends there when it is enrolled gets the annotation with it; " +
			"one that comes to send there later, or that others have brought in, is not started anew for it.", platform, "Annotate its pods `ambient.istio.io/dns-capture=false`, and start them anew."},
		{"ISM340", "Error", "`spec.capture` None keeps the gateway outside the mesh, and waypoints are asked for: it would send past them in plaintext, and their policies be void.", author,
			"Set `spec.capture` to Auto, or `spec.waypoint.policy` to None."},
		{"ISM341", "Warning", "`spec.capture` Native says that the gateway speaks HBONE itself. Nobody has seen it, and the path in the status is assumed.", platform,
			"Look for its identity in the waypoint's access log."},
		{"ISM342", "Error", "Pods of the gateway are labelled `istio.io/dataplane-mode=none`, and so are never captured.", platform, "Take the label away where the finding says that it is set."},
		{"ISM343", "Warning", "The gateway has no pods, as its workload has 0 replicas: nothing can be seen to hold, and `Ready` is false.", platform, "Scale it up, with the command that the finding prints."},
		{"ISM344", "Error, Warning", "A route sends to what is not followed to a Service: a route that its gateway does not delegate to, a vendor's backend, a ServiceImport, a mirror. It is an error where no route names a Service: nothing would be wired, and all seem well.", author,
			"Name all Services of the gateway in `spec.backends.services`."},
		{"ISM345", "Info", "No route names the gateway or one of its ListenerSets, and no Service is wired.", author,
			"Name its Services in `spec.backends.services`, or give it a route."},
		{"ISM346", "Error", "The plan was approved by `isthmus apply`, and has changed since: something would be written that was not in it. Nothing is written.", platform,
			"Review the plan of now, and approve it with `isthmus apply --plan`; or take the annotation `isthmus.dev/plan` away."},
		{"ISM347", "Warning", "A Service has no selector, and which pods serve it is not known: EndpointSlices are not read. Nobody sees whether they are in the mesh, nor whether policies at them would see the waypoint in place of callers (ISM205).", owner,
			"Give the Service a selector, or see to the workloads behind its EndpointSlices."},
		{"ISM348", "Warning", "A canary waypoint of a Service takes no part: it does not exist, or its weight is no number from 0 to 100. All requests go to the first waypoint. One that takes part is asked like the first, and a Service is not led to either before both answer.", owner,
			"Create the waypoint, or correct the label or the annotation."},
		{"ISM349", "Error, Warning", "The controller may not read objects of a kind that is installed, and cannot know what they say. It is an error where the gateway's switch is set or overridden by them, or every plan depends on them: nothing is written, and nothing taken back, for this AmbientEdge. " +
			"A warning where no waypoint is asked for. It goes by itself when the right is there.", platform,
			"Give the controller's account the rights get, list and watch for that resource, as the ClusterRole isthmus-observe of this release has them: `kubectl apply -k manifests`."},
		{"ISM360", "Warning, Info", "Of `authorization.pair.scope` Route. Info: a part of a route that no policy can say is left open at the waypoint, as headers, queries, hosts that begin with `*`, or a path that is a regular expression; or Pair makes no list of callers for a Service, and the gateway may call all of it. " +
			"Warning: it may call all of a Service that the pods let in, or all on a port, and the finding says why; or what is let in by routes stays as it is, as it is not known what they call; or another policy at the waypoint lets it in there too.", author,
			"Do what the finding says, or leave it so."},
		{"ISM361", "Info, Warning", "Of `authorization.pair.defaultDeny` Set, of a Service without a list of callers. Info: everybody but the gateway is refused, or will be when it is wired; callers that policies name, and pods that are seen, are told by name. Warning: its pods are not closed to others, and the finding says why.", author,
			"Give its pods an AuthorizationPolicy ALLOW that has whoever is to be let in; or do what the finding says."},
		{"ISM500", "Error, Warning", "Istio's own gateway checks tokens and takes them away, and policies at the waypoint ask every request for one, so that all of its requests are refused. It is an error where that would begin with what is to be written, and the Service is held back. " +
			"Of other gateways `isthmus check` finds it.", platform, "Set `forwardOriginalToken: true` in the RequestAuthentication at the gateway, or let the policy ask for the gateway's principal."},
	}
}

func findingsText() string {
	var w bytes.Buffer
	w.WriteString(`<!-- Generated from controller/api/v1alpha1: go generate ./controller/api/... -->

# Findings

A finding says what is wrong with an AmbientEdge or worth knowing, in its status, in ` + "`isthmus plan`, `status` and `observe`" + `. Its code is stable,
and never gets another meaning; its message names the objects, and its fix is for them. Error: this AmbientEdge does not get ready until it is mended.
One that is about a backend or a waypoint holds back the steps of that, which are Held, and the others go on; one that is about the gateway or the
AmbientEdge itself stops all writing. [Tenants](operations.md#tenants) has more. Warning: what works goes on. Info: to know.

| code | severity | what it means | who can mend it | how |
| --- | --- | --- | --- | --- |
`)
	for _, f := range findings() {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", f.code, f.severities, f.matter, f.whose, f.fix)
	}
	return w.String()
}

// codes are the constants of this package, by name.
func codes(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "findings.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				if all[v.Names[0].Name], err = strconv.Unquote(lit.Value); err != nil {
					t.Fatal(err)
				}
			}
		}
		return true
	})
	return all
}

// TestEveryFindingIsInTheReference: each code, once, and none that the controller cannot say.
func TestEveryFindingIsInTheReference(t *testing.T) {
	var source strings.Builder
	for _, glob := range []string{"../../plan/*.go", "../../run/*.go"} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", glob, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	var have []string
	for _, f := range findings() {
		have = append(have, f.code)
	}
	if !slices.IsSorted(have) || len(slices.Compact(slices.Clone(have))) != len(have) {
		t.Errorf("codes are not in order, or one is there twice: %v", have)
	}
	all := codes(t)
	if len(all) != len(have) {
		t.Errorf("there are %d codes, and the reference has %d", len(all), len(have))
	}
	for name, code := range all {
		if !slices.Contains(have, code) {
			t.Errorf("%s (%s) is not in the reference", code, name)
		}
		if !regexp.MustCompile(`v1alpha1\.` + name + `\b`).MatchString(source.String()) {
			t.Errorf("nobody says %s (%s)", code, name)
		}
	}
}

// TestSeveritiesAreThoseOfPlans: what the golden plans show is what the reference says.
func TestSeveritiesAreThoseOfPlans(t *testing.T) {
	files, err := filepath.Glob("../../plan/testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no plans: %v", err)
	}
	line := regexp.MustCompile(`(?m)^(ISM\d{3}) (Error|Warning|Info) `)
	shown := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			shown[m[1]+" "+m[2]] = true
		}
	}
	said := map[string]bool{}
	for _, f := range findings() {
		for severity := range strings.SplitSeq(f.severities, ", ") {
			said[f.code+" "+severity] = true
		}
	}
	for s := range shown {
		if !said[s] {
			t.Errorf("the reference does not say that there is %s", s)
		}
	}
	// What the API server or a fight tells is in no plan of a snapshot.
	for s := range said {
		if code, _, _ := strings.Cut(s, " "); !shown[s] && code != "ISM309" && code != "ISM310" {
			t.Errorf("the reference says %s, and no golden plan shows it", s)
		}
	}
}
