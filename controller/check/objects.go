package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const labelGatewayName = "gateway.networking.k8s.io/gateway-name"

func (o Object) kind() schema.GroupKind { return schema.GroupKind{Group: o.Group, Kind: o.Kind} }

func podKind() schema.GroupKind { return schema.GroupKind{Kind: "Pod"} }

// resource is an object as kubectl names it.
func (o Object) resource() string {
	kind := strings.ToLower(o.Kind)
	if o.Group != "" && o.Group != "apps" { // Istio has Gateways too
		kind = plural(kind) + "." + o.Group
	}
	if o.Namespace == "" {
		return kind + " " + o.Name
	}
	return "-n " + o.Namespace + " " + kind + " " + o.Name
}

func plural(kind string) string {
	switch {
	case strings.HasSuffix(kind, "cy"):
		return strings.TrimSuffix(kind, "y") + "ies"
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	}
	return kind + "s"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9._/:@*=-]+$`)

// plain says whether words mean to a shell, and in YAML, what they say: files may have others, and a command of these is nobody's to run.
func plain(words ...string) bool {
	return !slices.ContainsFunc(words, func(s string) bool { return !plainWord.MatchString(s) })
}

// plainName says whether the name of an object is as those of a cluster are.
func (o Object) plainName() bool { return plain(o.Name) && (o.Namespace == "" || plain(o.Namespace)) }

func labelCommand(o Object, key, value string) string {
	if !plain(key, value) {
		return ""
	}
	return fmt.Sprintf("kubectl label --overwrite %s %s=%s", o.resource(), key, value)
}

func annotateCommand(o Object, key, value string) string {
	if !plain(key, value) {
		return ""
	}
	return fmt.Sprintf("kubectl annotate --overwrite %s %s=%s", o.resource(), key, value)
}

// templateCommand sets a label or an annotation of a workload's pod template; what is labels or annotations.
func templateCommand(o Object, what, key, value string) string {
	return fmt.Sprintf("kubectl patch -n %s %s %s -p "+
		"'{\"spec\":{\"template\":{\"metadata\":{%q:{%q:%q}}}}}'", o.Namespace, strings.ToLower(o.Kind), o.Name, what, key, value)
}

// infrastructureCommand sets a label of a Gateway's pods.
func infrastructureCommand(o Object, key, value string) string {
	return fmt.Sprintf("kubectl patch -n %s gateways.gateway.networking.k8s.io %s --type=merge -p '{\"spec\":{\"infrastructure\":{\"labels\":{%q:%q}}}}'", o.Namespace,
		o.Name, key, value)
}

func isReady(p *plan.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

// assumedSuffix is that of the names of pods that files have workloads for.
const assumedSuffix = "-assumed"

// podName is the name of a pod, or, of one that is assumed, that of its workload.
func podName(p *plan.Pod) string {
	if p.UID == "" {
		return strings.TrimSuffix(p.Name, assumedSuffix)
	}
	return p.Name
}

// standing is an object, or, of a pod that is assumed, its workload.
func (w *World) standing(o Object) Object {
	if name, assumed := strings.CutSuffix(o.Name, assumedSuffix); assumed && w.Paper && o.kind() == podKind() && w.where[o] == "" {
		o.Group, o.Kind, o.Name = "apps", "Deployment", name
		if _, there := w.where[o]; !there {
			o.Kind = "DaemonSet"
		}
	}
	return o
}
