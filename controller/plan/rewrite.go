package plan

import (
	"strconv"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// annotationDryRun on a policy has waypoints note what it would do, and do nothing.
const annotationDryRun = "istio.io/dry-run"

// dryRun says whether a policy decides nothing, as istiod reads its annotation.
func dryRun(p *securityv1.AuthorizationPolicy) bool {
	is, err := strconv.ParseBool(p.Annotations[annotationDryRun])
	return err == nil && is
}

// over has a write of a policy that was made for the edge take the place of all that stands of it: what is not among its fields goes.
func (m *maker) over(w *Write, stands *securityv1.AuthorizationPolicy) *Write {
	if stands == nil {
		return w
	}
	w.UID, w.Force = stands.UID, true
	if spec, is := w.Fields["spec"].(map[string]any); is {
		spec = runtime.DeepCopyJSON(spec)
		emptied(specOf(stands), spec)
		w.Fields["spec"] = spec
	}
	if metadata, is := w.Fields["metadata"].(map[string]any); is && dryRun(stands) {
		metadata["annotations"] = map[string]any{annotationDryRun: nil}
	}
	return w
}

// emptied gives a tree of fields nil for each that only another has: a patch takes those away.
func emptied(stands, fields map[string]any) {
	for k, was := range stands {
		switch is, has := fields[k]; {
		case !has:
			fields[k] = nil
		default:
			inner, a := was.(map[string]any)
			to, b := is.(map[string]any)
			if a && b {
				emptied(inner, to)
			}
		}
	}
}
