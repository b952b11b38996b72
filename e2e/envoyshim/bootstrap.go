package envoyshim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Sockets by which Envoy and pilot-agent meet, as the bootstrap names them, relative to the working directory.
const (
	agentSocket = "etc/istio/proxy/XDS"
	shimSocket  = "etc/istio/proxy/SHIM"
)

// rewriteBootstrap takes Istio's own extension out of a bootstrap, and leads xDS to the shim.
func rewriteBootstrap(text []byte) ([]byte, error) {
	var b map[string]any
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("read bootstrap: %w", err)
	}
	if list, ok := b["bootstrap_extensions"].([]any); ok {
		list = slices.DeleteFunc(list, func(v any) bool {
			ext, _ := v.(map[string]any)
			config, _ := ext["typed_config"].(map[string]any)
			url, _ := config["type_url"].(string) // of a TypedStruct
			return strings.HasSuffix(url, "/istio.workload.BootstrapExtension")
		})
		if b["bootstrap_extensions"] = list; len(list) == 0 {
			delete(b, "bootstrap_extensions")
		}
	}
	if n := redirect(b); n == 0 {
		return nil, fmt.Errorf("the bootstrap has no cluster at %s", agentSocket)
	}
	return json.Marshal(b)
}

// redirect replaces the path of the agent's socket everywhere, and counts.
func redirect(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if path, ok := e.(string); ok && k == "path" && strings.TrimPrefix(path, "./") == agentSocket {
				v[k] = "./" + shimSocket
				n++
				continue
			}
			n += redirect(e)
		}
	case []any:
		for _, e := range v {
			n += redirect(e)
		}
	}
	return n
}
