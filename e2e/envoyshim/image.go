package envoyshim

import (
	"errors"
	"fmt"
	"os"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const funcName = "envoy-shim"

// Funcs is what world.Enter must know.
func Funcs() world.Funcs { return world.Funcs{funcName: Main} }

// MeshConfig is a mesh configuration for mesh.Options: access logs that package accesslog reads, and pilot-agent starts the shim as its Envoy.
const MeshConfig = accesslog.Format + `rootNamespace: istio-system
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
