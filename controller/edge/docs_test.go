package edge_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	godiff "github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

var update = flag.Bool("update", false, "write docs/gateways.md anew")

const reference = "../../docs/gateways.md"

func TestReferenceIsCurrent(t *testing.T) {
	want := gateways()
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if d := godiff.Diff(want, string(got)); d != "" {
		t.Errorf("docs/gateways.md is stale (run go generate ./controller/edge): -want +got\n%s", d)
	}
}

// gateways is the table as Markdown.
func gateways() string {
	var w bytes.Buffer
	w.WriteString(`<!-- Generated from controller/edge: go generate ./controller/edge -->

# Gateways

What Isthmus knows of each kind of gateway. A kind that is not here is taken for ` + "`custom`" + `: its pods are captured by their
namespace or pod template, and it must send to Services' addresses by itself. Which of this was seen running, and in which version, stands in the
vendor's file in [controller/edge](../controller/edge).

| gateway | Gateways | Ingresses | comes in by | switch |
| --- | --- | --- | --- | --- |
`)
	for _, v := range edge.Vendors() {
		fmt.Fprintf(&w, "| [%s](#%s) | %s | %s | %s | %s |\n", v.Name, v.Name, yes(v.Controllers), yes(v.IngressControllers), comesIn(&v), switchWord(&v))
	}
	for _, v := range edge.Vendors() {
		fmt.Fprintf(&w, "\n## %s\n\n", v.Name)
		line := func(what, text string) {
			if text != "" {
				fmt.Fprintf(&w, "- **%s**: %s\n", what, text)
			}
		}
		line("GatewayClasses of", code(v.Controllers))
		line("IngressClasses of", code(v.IngressControllers))
		line("Pods", pods(&v))
		line("Service account", v.Proxies.Account)
		line("Comes in by", comesIn(&v))
		var ports []string
		for _, p := range v.Ports {
			ports = append(ports, fmt.Sprintf("%d %s", p.Number, p.Use))
		}
		line("Ports to know", strings.Join(ports, "; "))
		for i := range v.Switches {
			s := &v.Switches[i]
			line("Switch"+map[edge.For]string{edge.ForRoutes: " for routes", edge.ForIngress: " for Ingresses"}[s.For], switchText(s))
		}
		line("No switch", v.NoSwitch)
		for _, n := range v.Needs {
			line("Needs", fmt.Sprintf("`%s=%s` in its controller (default %s): %s; else %s", n.Env, n.Want, n.Default, n.Fix, n.Why))
		}
		if v.NotNative != nil {
			line("Needs", v.NotNative.Fix+"; else "+v.NotNative.Why)
		}
		line("Follows delegation", delegation(v.Delegation))
		line("Headless Services", v.Headless)
		var lost []string
		for _, l := range v.Loses {
			lost = append(lost, fmt.Sprintf("%s `%s`: %s", l.Kind, edge.Field(l.Path), l.What))
		}
		line("Lost with the switch", strings.Join(lost, "; "))
		for _, x := range v.Warnings {
			line("Know", x)
		}
		line("What it has programmed", v.Inspect)
		line("`isthmus inspect` reads", shows(&v))
	}
	return w.String()
}

func shows(v *edge.Vendor) string {
	var out []string
	for _, p := range v.Shows {
		text := fmt.Sprintf("`%d%s` of %s", p.Port, p.Path, map[bool]string{true: "its controller's pods", false: "each of its pods"}[p.Controller])
		text += map[bool]string{true: ", on the pod's address", false: ", on loopback"}[p.Outside]
		if p.Needs != "" {
			text += " (with `" + p.Needs + "`)"
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return "nothing of it"
	}
	text := strings.Join(out, "; else ")
	if v.Upstreams != "" {
		return text + "; a Service's are `" + v.Upstreams + "`"
	}
	return text + "; a Service's are known by its address, or by pods that no other Service has"
}

func yes(list []string) string {
	if len(list) > 0 {
		return "yes"
	}
	return ""
}

func code(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, "`"+s+"`")
	}
	return strings.Join(out, ", ")
}

func comesIn(v *edge.Vendor) string {
	switch {
	case v.Never != "":
		return "never: " + v.Never
	case v.Native == edge.NativeAlways:
		return "speaks HBONE itself"
	case v.Native == edge.NativeByMode:
		return "speaks HBONE itself, where it is set so; else `spec.infrastructure` labels"
	case v.Infrastructure && v.OncePerStream:
		return "`spec.infrastructure` labels; pods captured later are rolled"
	case v.Infrastructure:
		return "`spec.infrastructure` labels"
	}
	return "namespace, or pod template"
}

func switchWord(v *edge.Vendor) string {
	if len(v.Switches) == 0 {
		return map[bool]string{true: "none", false: "not needed"}[v.NoSwitch != ""]
	}
	var out []string
	for i := range v.Switches {
		out = append(out, "`"+v.Switches[i].String()+"`")
	}
	return strings.Join(out, ", ")
}

func switchText(s *edge.Switch) string {
	text := "`" + s.String() + "` on " + map[edge.On]string{
		edge.OnService: "the Service", edge.OnIngress: "the Ingress", edge.OnParameters: "the parameters that the Gateway alone refers to",
		edge.OnGateway: "a policy for the Gateway, made where there is none", edge.OnServiceByRef: "a policy for the Service, made where there is none",
		edge.OnList: "the object, by its owner: a list is not written for you",
	}[s.On]
	if s.Since != "" {
		text += ", since " + s.Since
	}
	if s.Unreleased {
		text += " (not released when this was written)"
	}
	if len(s.NotFor) > 0 {
		text += "; not for " + strings.Join(s.NotFor, "s and ") + "s, which go to pods"
	}
	if s.Skips != "" {
		text += "; not for " + s.Skips
	}
	return text
}

func delegation(d *edge.Delegation) string {
	if d == nil {
		return ""
	}
	text := "`backendRefs` to HTTPRoutes, by name or `*`"
	if d.Label != "" {
		text += fmt.Sprintf(", and to `%s` of group `%s`, for the label `%s`, in namespace `%s` for that of all", d.Kind, d.Group, d.Label, d.Anywhere)
	}
	if d.NameIsLabel {
		text += ", or by a label, `KEY=VALUE`"
	}
	if d.Silent {
		text += "; it reports nothing on routes without `parentRefs`"
	}
	return text
}

func pods(v *edge.Vendor) string {
	labels := func(m map[string]string) string {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, "`"+k+"="+m[k]+"`")
		}
		return strings.Join(out, ", ")
	}
	switch p := v.Proxies; {
	case len(p.Service) > 0:
		return "those of the Service with " + labels(p.Service)
	case p.Anywhere:
		return labels(p.Labels) + ", in any namespace"
	case len(p.Labels) > 0:
		return labels(p.Labels)
	}
	by := labels(v.Workload.Labels)
	if by != "" && len(v.Workload.Images) > 0 {
		by += " or "
	}
	if len(v.Workload.Images) > 0 {
		by += "image " + code(v.Workload.Images)
	}
	return "one set for all, known by " + cmp.Or(by, "its name")
}
