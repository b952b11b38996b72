package explain

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Patch changes one policy.
type Patch struct {
	Policy policy.Ref
	// Text is a JSON patch in YAML, below a comment with the command that takes it.
	Text string
}

// patchesOf are those of all changes, by policy.
func patchesOf(p *policy.Patcher) (list []Patch) {
	p.Each(func(ref policy.Ref, ops []policy.Operation) {
		text, err := yaml.Marshal(ops)
		if err != nil {
			return
		}
		command := fmt.Sprintf("# kubectl patch authorizationpolicies.security.istio.io -n %s %s --type json --patch-file FILE\n", ref.Namespace, ref.Name)
		list = append(list, Patch{ref, command + string(text)})
	})
	return list
}
