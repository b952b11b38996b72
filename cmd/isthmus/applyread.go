package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// maxPlan is how long a plan may be, in bytes.
const maxPlan = 64 << 20

// readPlan reads what isthmus plan has written, and refuses what can be no plan to carry out.
func (a *app) readPlan(path string) (*planDocument, error) {
	const next = "write one with: isthmus plan -f FILE -o json > plan.json"
	in, where := a.stdin, "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, &failure{what: "cannot read the plan", where: path, err: err, next: next}
		}
		defer file.Close()
		in, where = file, path
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPlan+1))
	if err != nil {
		return nil, &failure{what: "cannot read the plan", where: where, err: err}
	}
	if len(data) > maxPlan {
		return nil, &failure{what: fmt.Sprintf("this plan is longer than %d MiB", maxPlan>>20), where: where, next: "make several AmbientEdges of it"}
	}
	d := &planDocument{}
	unmarshal := func(data []byte, to any) error { return yaml.Unmarshal(data, to) }
	if data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\uFEFF"))); bytes.HasPrefix(data, []byte("{")) {
		unmarshal = json.Unmarshal
	}
	if err := unmarshal(data, d); err != nil {
		return nil, &failure{what: "this is no plan", where: where, err: err, next: next}
	}
	refuse := func(what, next string) error { return &failure{what: what, where: where, next: next} }
	switch {
	case d.Kind != "Plan" || d.Namespace == "" || d.Name == "":
		return nil, refuse(fmt.Sprintf("this is no plan, but of kind %q", d.Kind), next)
	case d.APIVersion != newHeader("").APIVersion:
		return nil, refuse("this isthmus does not know plans of "+d.APIVersion, "use the isthmus that wrote it, or plan again")
	case d.Approval == "":
		return nil, refuse("this plan was written by an isthmus that did not know how to apply one", "plan again")
	case d.Undoing:
		return nil, refuse("this plan is that of an undo, which needs no approval", fmt.Sprintf("kubectl delete ambientedge -n %s %s carries it out", d.Namespace, d.Name))
	case d.FromFiles:
		return nil, refuse("this plan was made from files alone, and assumes what a cluster would tell", "plan against the cluster: isthmus plan -f FILE -o json > plan.json")
	case d.Approval != plan.ApprovalDigest(d.applied(), d.Effects):
		return nil, refuse("this plan was changed by hand, or written by another isthmus: its AmbientEdge and effects are not those that its approval is of", "change the AmbientEdge, and plan again")
	case len(d.Effects) > plan.MaxEffects:
		return nil, refuse(fmt.Sprintf("this plan has %d effects, and %d can be approved", len(d.Effects), plan.MaxEffects), "make several AmbientEdges of it")
	}
	if err := d.unapprovable(); err != nil {
		return nil, err
	}
	return d, nil
}

// unapprovable is an error that names what blocks a plan as a whole. What holds back some backends only is no obstacle: nothing is done for them.
func (d *planDocument) unapprovable() error {
	if len(d.BlockedBy) == 0 {
		return nil
	}
	return &failure{what: "the plan is blocked: " + strings.Join(d.BlockedBy, ", "), next: "do what its findings say, and plan again"}
}

// heldNote says which backends a plan holds back, and that what is to be done for them is not approved by it. Without any it is empty.
func (d *planDocument) heldNote() string {
	var list []string
	for _, b := range d.Backends {
		if len(b.Held) > 0 {
			list = append(list, b.Service+" ("+strings.Join(b.Held, ", ")+")")
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "held back, and not a part of what is approved: Service " + strings.Join(list, ", ") + "; when its findings are mended, that takes a new plan, and a new approval"
}
