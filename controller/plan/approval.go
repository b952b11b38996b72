package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Effect is one thing that a plan brings about: an object is made or goes, or a field gets a value. Effects are about the end: they are the same
// while the plan is walked, but for those that take something away, which end when it is gone.
type Effect struct {
	// Object is Kind namespace/name.
	Object string `json:"object"`
	// Does is Create, Delete, Release, Set or Remove.
	Does string `json:"does"`
	// Field is what is set or removed.
	Field string `json:"field,omitempty"`
	// Value is what it is set to. Of what starts pods anew it is left out.
	Value any `json:"value,omitempty"`
}

// What is done to fields.
const (
	doesSet    = "Set"
	doesRemove = "Remove"
)

// Effects are all that p, made of s, brings about in the end: what is left to be done, what is done already and would be mended, and that pods are
// started anew where they may turn out to have been captured too late. Each is there once, in order.
func (p *Plan) Effects(s *Snapshot) []Effect {
	list := p.effectsLeft(s)
	for i := range p.Steps {
		if p.Steps[i].wants == nil {
			continue
		}
		w := p.Steps[i].wants()
		if _, whole := valueAt(w.Fields, []string{"metadata", "labels", v1alpha1.LabelOwner}); whole {
			list = append(list, Effect{Object: w.String(), Does: string(DeedCreate)})
		}
		all := map[string]leaf{}
		gather(plainTree(w.Fields), nil, all)
		for _, x := range all {
			list = append(list, set(w.String(), &FieldChange{Path: x.path, After: x.value}))
		}
	}
	for _, r := range p.mayRoll {
		list = append(list, set(r.String(), &FieldChange{Path: r.path}))
	}
	slices.SortFunc(list, func(a, b Effect) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Does, b.Does), cmp.Compare(a.hash(), b.hash()))
	})
	return slices.CompactFunc(list, func(a, b Effect) bool { return a.hash() == b.hash() })
}

// effectsLeft are the effects of what is left to be done.
func (p *Plan) effectsLeft(s *Snapshot) []Effect {
	var list []Effect
	for _, c := range p.Changes(s) {
		list = append(list, c.effects()...)
	}
	return list
}

func (c *Change) effects() []Effect {
	var list []Effect
	switch c.Deed {
	case DeedDelete, DeedRelease:
		return []Effect{{Object: c.String(), Does: string(c.Deed)}}
	case DeedCreate:
		list = append(list, Effect{Object: c.String(), Does: string(c.Deed)})
	}
	for i := range c.Fields {
		if f := &c.Fields[i]; f.After == nil {
			list = append(list, Effect{Object: c.String(), Does: doesRemove, Field: f.Field()})
		} else {
			list = append(list, set(c.String(), f))
		}
	}
	return list
}

func set(object string, f *FieldChange) Effect {
	e := Effect{Object: object, Does: doesSet, Field: f.Field(), Value: f.After}
	if Rolls(e.Field) || strings.Contains(object, "/"+witnessPrefix) && strings.HasPrefix(e.Field, "spec.rules") { // which nobody knows beforehand
		e.Value = nil
	}
	return e
}

// String is the effect for people.
func (e Effect) String() string { return e.Object + ": " + e.short() }

// short is String beside the object's name.
func (e Effect) short() string {
	switch {
	case e.Does == doesSet && e.Value != nil:
		return fmt.Sprintf("%s: %v", e.Field, e.Value)
	case e.Does == doesSet:
		return e.Field
	case e.Does == doesRemove:
		return "without " + e.Field
	}
	return strings.ToLower(e.Does)
}

// hash names the effect in an approval.
func (e Effect) hash() string {
	text, err := json.Marshal(e)
	if err != nil {
		return "" // values come from JSON
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))[:16]
}

// Approval is the value of the annotation isthmus.dev/plan that lets the controller bring these effects about for an AmbientEdge, and no others: a digest of
// all, and the hash of each. What is left may be less than what was approved, as some of it is done or not wanted any more.
func Approval(of *v1alpha1.AmbientEdge, effects []Effect) string {
	hashes := make([]string, len(effects))
	for i, e := range effects {
		hashes[i] = e.hash()
	}
	return ApprovalDigest(of, effects) + ":" + strings.Join(hashes, ",")
}

// ApprovalDigest is the digest of Approval: of the effects, and of the AmbientEdge as it is applied, with its name, labels, annotations and spec. The
// approval itself is no part of it, nor is what kubectl has noted of what it applied.
func ApprovalDigest(of *v1alpha1.AmbientEdge, effects []Effect) string {
	annotations := maps.Clone(of.Annotations)
	delete(annotations, v1alpha1.AnnotationPlan)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	text, err := json.Marshal(struct {
		Namespace, Name     string
		Labels, Annotations map[string]string `json:",omitempty"`
		Spec                *v1alpha1.AmbientEdgeSpec
	}{of.Namespace, of.Name, of.Labels, annotations, &of.Spec})
	if err != nil {
		return "" // it comes from JSON
	}
	h := sha256.New()
	fmt.Fprintln(h, string(text))
	for _, e := range effects {
		fmt.Fprintln(h, e.hash())
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// ApprovedAs is the digest of the approval that an AmbientEdge has, or empty; of what is no approval it is the beginning.
func ApprovedAs(e *v1alpha1.AmbientEdge) string {
	digest, _, _ := strings.Cut(e.Annotations[v1alpha1.AnnotationPlan], ":")
	return strings.ToValidUTF8(digest[:min(len(digest), v1alpha1.MaxApproval)], "")
}

// MaxEffects is how many effects an approval can have: annotations of an object may take 256 KiB.
const MaxEffects = 8192

// rolling is an object by which a gateway's pods may be started anew, and the field that does it.
type rolling struct {
	carrier
	path []string
}

// approved holds a plan that was approved, and would write now, or later, what was not in it. To be undone needs no approval: to delete the AmbientEdge is
// an order of its own, and halts of its own.
func (m *maker) approved() {
	text, is := m.Edge.Annotations[v1alpha1.AnnotationPlan]
	if !is || m.plan.Undoing || m.Edge.Spec.Mode != v1alpha1.ModeManage {
		return
	}
	digest, hashes, ok := strings.Cut(text, ":")
	allowed := map[string]bool{}
	for h := range strings.SplitSeq(hashes, ",") {
		allowed[h] = true
	}
	var news []string
	for _, c := range m.plan.Changes(m.Snapshot) {
		var what []string
		for _, e := range c.effects() {
			if !allowed[e.hash()] {
				what = append(what, e.short())
			}
		}
		if len(what) > 0 {
			news = append(news, fmt.Sprintf("%s (%s)", strings.Join(c.Steps, ", "), strings.Join(what, "; ")))
		}
	}
	if len(news) == 0 {
		return
	}
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingPlanChanged, Severity: v1alpha1.SeverityError, Object: object("AmbientEdge", keyOf(m.Edge)),
		Field:   edge.Field([]string{"metadata", "annotations", v1alpha1.AnnotationPlan}),
		Message: fmt.Sprintf("the plan has changed since it was approved as %s, and nothing is written: %s", digest, listed(news)),
		Fix: fmt.Sprintf("isthmus plan -o json %s/%s > plan.json, review it, and isthmus apply --plan plan.json; or, to have it go on without approval: kubectl annotate ambientedge -n %s %s %s-",
			m.Edge.Namespace, m.Edge.Name, m.Edge.Namespace, m.Edge.Name, v1alpha1.AnnotationPlan),
	}
	if !ok {
		f.Message = fmt.Sprintf("this annotation is no approval, as isthmus apply writes it, and nothing is written: %s", listed(news))
	}
	m.found(f)
}

// Rolls says whether a field, as FieldChange.Field has it, is that which starts pods anew: its value names the pods, and is nobody's wish.
func Rolls(field string) bool { return strings.HasSuffix(field, "["+v1alpha1.AnnotationRollout+"]") }
