package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// istioFiles are files of Istio's module.
func istioFiles() group {
	return group{
		name: "istio-files", names: []Name{IstioCRDs, EnvoyBootstrap}, inputs: istioModule().inputs(),
		make: func(ctx context.Context, m *maker, names []Name, dir string) error {
			mod, err := moduleDir(ctx, m, istioModule().dir(), "istio.io/istio")
			if err != nil {
				return err
			}
			from := map[Name]string{
				IstioCRDs:      "manifests/charts/base/files/crd-all.gen.yaml",
				EnvoyBootstrap: "tools/packaging/common/envoy_bootstrap.json",
			}
			for _, n := range names {
				b, err := os.ReadFile(filepath.Join(mod, from[n]))
				if err != nil {
					return fmt.Errorf("read Istio's module: %w", err)
				}
				if err := os.WriteFile(filepath.Join(dir, string(n)), b, 0o644); err != nil {
					return explain(err, "")
				}
			}
			return nil
		},
	}
}

// gatewayFiles are the CRDs of the Gateway API, without its admission policy.
func gatewayFiles() group {
	return group{
		name: "gateway-files", names: []Name{GatewayCRDs}, inputs: []string{"go.mod"},
		make: func(ctx context.Context, m *maker, _ []Name, dir string) error {
			mod, err := moduleDir(ctx, m, ".", "sigs.k8s.io/gateway-api")
			if err != nil {
				return err
			}
			files, err := filepath.Glob(filepath.Join(mod, "config", "crd", "standard", "*.yaml"))
			if err != nil {
				return err
			}
			var docs [][]byte
			for _, f := range files {
				if strings.Contains(filepath.Base(f), "_vap_") {
					continue
				}
				b, err := os.ReadFile(f)
				if err != nil {
					return fmt.Errorf("read the Gateway API's module: %w", err)
				}
				docs = append(docs, b)
			}
			if len(docs) == 0 {
				return fmt.Errorf("no CRDs in %s", mod)
			}
			return explain(os.WriteFile(filepath.Join(dir, string(GatewayCRDs)), bytes.Join(docs, []byte("\n---\n")), 0o644), "")
		},
	}
}

// injectorSettings are the settings of the installation whose templates we take.
func injectorSettings() []string {
	repo, tag, _ := strings.Cut(ProxyImage, ":")
	return []string{"profile=ambient", "hub=" + strings.TrimSuffix(repo, "/proxyv2"), "tag=" + tag, "values.global.variant="}
}

// injectorFile is a part of what istioctl would install.
func injectorFile() group {
	return group{
		name: "istio-injector", names: []Name{Injector}, inputs: istioModule().inputs(), salt: strings.Join(injectorSettings(), " "),
		make: func(ctx context.Context, m *maker, _ []Name, dir string) error {
			paths, err := m.ensure(ctx, istioModule().group(), []Name{Istioctl})
			if err != nil {
				return err
			}
			args := []string{"manifest", "generate"}
			for _, s := range injectorSettings() {
				args = append(args, "--set", s)
			}
			cmd := exec.CommandContext(ctx, paths[0], args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				return explain(fmt.Errorf("run istioctl manifest generate: %w", err), stderr.String())
			}
			cm, err := injector(out)
			if err != nil {
				return fmt.Errorf("read istioctl's manifest: %w", err)
			}
			return explain(os.WriteFile(filepath.Join(dir, string(Injector)), cm, 0o644), "")
		},
	}
}

// injector finds the ConfigMap in a manifest and leaves only the templates of gateways and waypoints in it.
func injector(manifest []byte) ([]byte, error) {
	for doc := range bytes.SplitSeq(manifest, []byte("\n---")) {
		var cm struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Metadata   map[string]any    `json:"metadata"`
			Data       map[string]string `json:"data"`
		}
		if err := yaml.Unmarshal(doc, &cm); err != nil || cm.Kind != "ConfigMap" || cm.Metadata["name"] != "istio-sidecar-injector" {
			continue // of another shape
		}
		var config map[string]any
		if err := yaml.Unmarshal([]byte(cm.Data["config"]), &config); err != nil {
			return nil, err
		}
		templates, _ := config["templates"].(map[string]any)
		keep := map[string]any{}
		for _, n := range []string{"waypoint", "kube-gateway"} {
			if templates[n] == nil {
				return nil, fmt.Errorf("no template %s", n)
			}
			keep[n] = templates[n]
		}
		config["templates"] = keep
		config["defaultTemplates"] = []string{}
		b, err := yaml.Marshal(config)
		if err != nil {
			return nil, err
		}
		cm.Data["config"] = string(b)
		cm.Metadata = map[string]any{"name": "istio-sidecar-injector", "namespace": "istio-system"}
		return yaml.Marshal(cm)
	}
	return nil, errors.New("no ConfigMap istio-sidecar-injector")
}
