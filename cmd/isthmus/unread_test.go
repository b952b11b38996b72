package main

import (
	"strings"
	"testing"
)

const misspeltPolicy = `# policies
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: misspelt, namespace: shop}
spec:
  rules:
  - from:
    - source:
        principal: [a]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: unknown, namespace: shop}
spec:
  action: ALOW
`

const wellPolicies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: lower, namespace: shop}
spec:
  rules:
  - to: [{operation: {methods: [get]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: newer, namespace: shop}
spec:
  hostname: [a.example]
`

// TestWhatCannotBeReadIsFound: each fault at its line, with the nearest field, and what else is found beside them.
func TestWhatCannotBeReadIsFound(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": misspeltPolicy, "b.yaml": wellPolicies, "c.yaml": "apiVersion: v1\nkind: Service\nmetadata: {\n  name: a\nspec: 1\n"})
	for _, output := range []string{outputText, outputJSON, outputSARIF} {
		r := isthmus(t, "check", "--fail-on", "never", "-o", output, "-f", dir)
		for _, part := range []string{
			"ISM130", "there is no field spec.rules[0].from[0].source.principal", "write principals for principal", "spec.action is ",
			"takes ALLOW, DENY, AUDIT or CUSTOM", "write ALLOW", "ISM228", "a field spec.hostname is not known here", "write hostnames for hostname",
			"this is no YAML",
		} {
			r.want(t, exitUnseen, r.stdout, part)
		}
	}
	r := isthmus(t, "check", "-f", dir)
	for _, at := range []string{"a.yaml:10)", "a.yaml:16)", "b.yaml:12)", "c.yaml:4)"} {
		r.want(t, exitUnseen, r.stdout, at)
	}
	r.want(t, exitUnseen, r.stderr, "this is no YAML, and 2 more cannot be read", "c.yaml:4", "isthmus check -f tells of all")
	if d := decode[checkDocument](t, isthmus(t, "check", "-o", "json", "-f", dir).stdout); d.Counts.Unread != 3 {
		t.Errorf("counts are %+v", d.Counts)
	}
	// A field that newer APIs may have is no error.
	newer := folder(t, map[string]string{"b.yaml": strings.SplitAfter(wellPolicies, "---\n")[1]})
	r = isthmus(t, "check", "-f", newer)
	r.want(t, exitOK, r.stdout, "Warnings", "a field spec.hostname is not known here", "1 warning")
	// Who is told an answer is not told a wrong one.
	r = isthmus(t, "explain", "-f", dir, "--from", "sa/shop/a", "--to", "shop/orders:80")
	r.want(t, exitFailed, r.stderr, "this is no YAML, and 2 more cannot be read")
}

// TestNothingIsNoGreenAnswer: what is empty since something before it failed, or has no objects, was not checked.
func TestNothingIsNoGreenAnswer(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "braces": "{}\n", "text": "hello\n", "a list without items": "apiVersion: v1\nkind: List\nitems: []\n", "a comment": "# nothing\n"} {
		r := isthmus(t, "check", "-f", folder(t, map[string]string{"a.yaml": text})+"/a.yaml")
		r.want(t, exitUnseen, r.stderr, "there are no objects in this file", "a.yaml")
		if r.stdout != "" {
			t.Errorf("%s: standard output has %q", name, r.stdout)
		}
		r = isthmusWith(t, t.Context(), strings.NewReader(text), "check", "-o", "sarif", "-f", "-")
		r.want(t, exitUnseen, r.stderr, "there are no objects in standard input")
	}
}

const brokenEdge = `apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: http, namespace: edge}
spec:
  targetRefs: [{name: gatway}]
`

// TestAmbientEdgesAreCheckedForTheirForm: values and what goes together, and it is told that files alone do not have what they name.
func TestAmbientEdgesAreCheckedForTheirForm(t *testing.T) {
	for _, c := range []struct{ more, want string }{
		{"  mode: manage\n", `spec.mode is "manage", and takes`},
		{"  waypoint: {policy: Create}\n", "spec.waypoint has no name, which policy Create needs"},
		{"  workloadRefs: [{kind: Deployment, name: a}]\n", "spec takes exactly one of targetRefs and workloadRefs"},
		{"  targetRef: []\n", "there is no field spec.targetRef"},
		{"  authorization: {mode: off}\n", "write it in quotes"},
	} {
		r := isthmusWith(t, t.Context(), strings.NewReader(brokenEdge+c.more), "check", "-f", "-")
		r.want(t, exitUnseen, r.stdout, "AmbientEdge edge/http", c.want)
	}
	r := isthmusWith(t, t.Context(), strings.NewReader(brokenEdge), "check", "-f", "-")
	r.want(t, exitOK, r.stderr, "what AmbientEdge edge/http names was looked for in the files alone", "isthmus plan -f")
	plan := folder(t, map[string]string{"a.yaml": brokenEdge + "  waypoint: {policy: Create}\n"})
	r = isthmus(t, "plan", "--from", plan)
	r.want(t, exitFailed, r.stderr, "spec.waypoint has no name")
}

// TestClassesAreKnownByTheirNames: repositories of applications have no GatewayClass as a rule.
func TestClassesAreKnownByTheirNames(t *testing.T) {
	const world = `{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: shop}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: shop}, spec: {parentRefs: [{name: http}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}
`
	r := isthmusWith(t, t.Context(), strings.NewReader(world), "explain", "-f", "-", "--from", "gateway/shop/http", "--to", "shop/orders:80")
	r.want(t, exitOK, r.stderr, "GatewayClass istio is not in the files: its controller is taken to be istio.io/gateway-controller, as its name has it")
	if strings.Contains(r.stdout, "custom") || strings.Contains(r.stdout+r.stderr, "no route of") {
		t.Errorf("got\n%s%s", r.stdout, r.stderr)
	}
	const elsewhere = `---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: team}, spec: {parentRefs: [{name: http, namespace: shop}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}
`
	r = isthmusWith(t, t.Context(), strings.NewReader(world+elsewhere), "check", "-f", "-", "--fail-on", "never")
	r.want(t, exitOK, r.stdout, "ISM104", "none of the listeners of Gateway shop/http admits")
	r.want(t, exitOK, r.stderr, "GatewayClass istio is not in the files: its controller is taken to be istio.io/gateway-controller, as its name has it")
}

// TestFlagsNameWhatIsThere: who names an istiod or a root namespace means that one.
func TestFlagsNameWhatIsThere(t *testing.T) {
	c := smallCluster()
	c.kinds = append(c.kinds, stored(core(), "ConfigMap", "configmaps"))
	c.start(t)
	for flag, want := range map[string]string{
		"--istio-namespace nope": "there is no mesh's configuration where --istio-namespace nope has it", "--revision x": "there is no mesh's configuration where --revision x has it",
		"--root-namespace nope": "there is no namespace nope, which --root-namespace names",
	} {
		r := isthmus(t, strings.Fields("check "+flag)...)
		r.want(t, exitUnseen, r.stderr, want)
	}
	r := isthmus(t, "check", "--root-namespace", "shop")
	r.want(t, exitOK, r.stderr, "the mesh's configuration cannot be read")
}

// TestCodesMayBeGivenAsNumbers: what people read aloud.
func TestCodesMayBeGivenAsNumbers(t *testing.T) {
	r := isthmus(t, "check", "--explain", "201")
	r.want(t, exitOK, r.stdout, "ISM201: ")
}
