package envoyshim

import (
	"errors"
	"fmt"
	"os"

	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const funcName = "envoy-shim"

// Funcs is what world.Enter must know.
func Funcs() world.Funcs { return world.Funcs{funcName: Main} }

// AccessLog is the part of a mesh configuration that makes Envoy write the lines that Requests reads.
const AccessLog = `accessLogFile: /dev/stdout
accessLogEncoding: JSON
accessLogFormat: |
  {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "ended": "%CONNECTION_TERMINATION_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "peer": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    "tls_peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "policy": "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
    "tcp_policy": "%DYNAMIC_METADATA(envoy.filters.network.rbac:enforced_effective_policy_id)%",
    "iss": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:iss)%",
    "sub": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "target": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "upstream": "%UPSTREAM_HOST%"
  }
`

// MeshConfig is a mesh configuration for mesh.Options: AccessLog, and pilot-agent starts the shim as its Envoy.
const MeshConfig = AccessLog + `rootNamespace: istio-system
defaultConfig:
  binaryPath: ` + shimPath + `
  terminationDrainDuration: 1s
  proxyMetadata: {ISTIO_META_ENABLE_HBONE: "true"}
`

// Image is what istiod's pods of image programs.ProxyImage run. The set needs pilot-agent, Envoy and the template of its bootstrap;
// the error says which is missing and why. The running program must have called world.Enter with Funcs.
func Image(set programs.Set) (node.Image, error) {
	own, err := os.Executable()
	if err != nil {
		return node.Image{}, err
	}
	for _, name := range []programs.Name{programs.PilotAgent, programs.Envoy, programs.EnvoyBootstrap} {
		if set.Path(name) == "" {
			return node.Image{}, fmt.Errorf("waypoints and gateways cannot run: %w", absent(set, name))
		}
	}
	return node.Image{
		Entrypoint: []string{agentPath},
		Env:        []string{world.FuncEnv + "=" + funcName},
		Files: map[string]string{
			agentPath: set.Path(programs.PilotAgent),
			envoyPath: set.Path(programs.Envoy),
			shimPath:  own,
			"/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": set.Path(programs.EnvoyBootstrap),
		},
	}, nil
}

// absent says why set does not have name.
func absent(set programs.Set, name programs.Name) error {
	for _, m := range set.Missing() {
		if m.Name == name {
			return errors.New(m.Reason)
		}
	}
	return fmt.Errorf("%s was not asked for", name)
}
