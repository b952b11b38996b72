package envoyshim

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/e2e/node"
)

// Admin asks the Envoy of a waypoint's or gateway's pod what its administration page path says, as "clusters",
// "listeners?format=json" or "config_dump". It blocks until the answer is there or ctx ends.
func Admin(ctx context.Context, p *node.Player, namespace, pod, path string) (string, error) {
	out, err := p.Exec(ctx, namespace, pod, proxyContainer, agentPath, "request", "GET", path)
	if err != nil {
		return "", fmt.Errorf("ask Envoy of %s/%s for %s: %w", namespace, pod, path, err)
	}
	return string(out), nil
}

// proxyContainer is the container that istiod's templates run Envoy in.
const proxyContainer = "istio-proxy"
