package check

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

func edgeStatusChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM600", Title: "a policy is accepted that the proxies cannot carry out", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"ER08"},
			Matter: "A TrafficPolicy of kgateway needs a module of kgateway's own Envoy, and the gateway's pods run another image.",
			Harm:   "An Envoy without the module rejects the whole listener and goes on with what it had, while the policy's status stays Accepted.",
			Fix:    "Run kgateway's image, or do without that field. Envoy's counter update_rejected tells the truth, and the status does not.",
			Find:   findRejectedPolicies,
		},
		{
			Code: "ISM601", Title: "the gateway has not taken a policy", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B15", "ER08"},
			Matter: "The status of a policy at the edge says that its gateway has refused it, so that its rules hold nowhere.",
			Harm:   "What the policy asks for, as a token, is not asked for; or its routes answer 500.",
			Fix:    "See the condition, and mend what it names.",
			Find:   findRefusedPolicies,
		},
	}
}

func findRejectedPolicies(w *World, found func(Finding)) {
	edges := w.EdgeRules()
	for i := range edges {
		e := &edges[i]
		if e.View.Vendor.Name != "kgateway" || w.Paper {
			continue
		}
		image := foreignImage(e)
		if image == "" {
			continue
		}
		for j := range e.Rules.Rules {
			r := &e.Rules.Rules[j]
			field := ""
			for _, name := range []string{"spec.transformation", "spec.acl"} {
				if r.Object.Kind == "TrafficPolicy" && (r.Field == name || strings.HasPrefix(r.Field, name+".")) {
					field = name
				}
			}
			if field == "" {
				continue
			}
			found(Finding{
				Object: ruleObject(r.Object), Field: field, Related: []Object{e.object()},
				Message: fmt.Sprintf("the pods of %s run image %s, and this field needs the module in kgateway's own (envoy-wrapper): "+
					"an Envoy without it rejects the whole listener and goes on with what it had, while this policy's status stays Accepted", e.View.String(), image),
				Fix: fmt.Sprintf("run kgateway's image, or do without the field; see whether it was rejected: kubectl port-forward -n %s deploy/%s 19000, then "+
					"curl -s localhost:19000/stats | grep update_rejected", e.View.Key.Namespace, e.View.Key.Name),
			})
		}
	}
}

// foreignImage is an image of a gateway's pods, none of whose containers runs kgateway's own Envoy. Empty: they do, or there are none.
func foreignImage(e *Edge) string {
	image := ""
	for _, p := range e.View.Pods {
		for i := range p.Spec.Containers {
			if strings.Contains(p.Spec.Containers[i].Image, "envoy-wrapper") {
				return ""
			}
			if image == "" {
				image = p.Spec.Containers[i].Image
			}
		}
	}
	return image
}

func findRefusedPolicies(w *World, found func(Finding)) {
	edges := w.EdgeRules()
	for i := range edges {
		e := &edges[i]
		for j := range e.Rules.Rules {
			r := &e.Rules.Rules[j]
			ref := r.Object
			if r.By.Name != "" {
				ref = r.By
			}
			o := w.Other(schema.GroupKind{Group: ref.Group, Kind: ref.Kind}, ref.Namespace, ref.Name)
			told := func(f v1alpha1.Finding) bool {
				return f.Code == v1alpha1.FindingRejected && f.Object == ruleObject(ref).String()
			}
			if o == nil || strings.HasSuffix(ref.Kind, "Route") || slices.ContainsFunc(e.View.Findings, told) {
				continue
			}
			what := edgeRefusal(o, e, r)
			if what == "" {
				continue
			}
			f := Finding{Object: ruleObject(ref), Field: "status", Related: []Object{e.object()}, Severity: v1alpha1.SeverityWarning}
			f.Message = fmt.Sprintf("%s: what it says is not in force at %s, or its routes answer 500", what, e.View.String())
			if protects(e.Rules.Rules, ref) {
				f.Severity = v1alpha1.SeverityError
				f.Message = fmt.Sprintf("%s: who calls %s is not asked as it says, or its routes answer 500", what, e.View.String())
			}
			f.Fix = "mend what the condition names: kubectl describe " + strings.ToLower(o.GetKind()) + " -n " + o.GetNamespace() + " " + o.GetName()
			found(f)
		}
	}
}

// protects says whether an object has a rule that asks who it is.
func protects(list []rules.Rule, object rules.Ref) bool {
	return slices.ContainsFunc(list, func(r rules.Rule) bool { return (r.Object == object || r.By == object) && asks(&r) })
}

// edgeRefusal says how a policy's status tells that a gateway has not taken it, or nothing. Conditions stand there for each ancestor, or for all.
func edgeRefusal(o *unstructured.Unstructured, e *Edge, r *rules.Rule) string {
	status, _ := o.Object["status"].(map[string]any)
	lists := [][]map[string]any{mapsIn(status, "conditions")}
	for _, a := range mapsIn(status, "ancestors") {
		ref, _ := a["ancestorRef"].(map[string]any)
		name, _ := ref["name"].(string)
		if name == e.ref.Name || slices.ContainsFunc(r.Targets, func(t rules.Target) bool { return t.Object.Name == name }) {
			lists = append(lists, mapsIn(a, "conditions"))
		}
	}
	for _, list := range lists {
		for _, c := range list {
			if c["type"] != "Accepted" && c["type"] != "Attached" {
				continue
			}
			if c["status"] == "False" {
				return fmt.Sprintf("the gateway has not taken it: %v is False, %v: %v", c["type"], c["reason"], c["message"])
			}
		}
	}
	return ""
}
