package programs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// KgatewayVersion is the version of Kgateway that its tool module pins.
const KgatewayVersion = "v2.4.0"

// KgatewayEdge is a gateway of somebody else's: its controller and its CRDs. Its proxies are Envoy. All does not have it, as it takes a
// quarter of an hour to build.
func KgatewayEdge() []Name { return []Name{Kgateway, KgatewayCRDs} }

func kgatewayModule() module {
	return module{name: "kgateway", packages: map[Name]string{Kgateway: "github.com/kgateway-dev/kgateway/v2/cmd/kgateway"}}
}

// kgatewayFiles are the CRDs of kgateway, from the chart in its module.
func kgatewayFiles() group {
	return group{
		name: "kgateway-files", names: []Name{KgatewayCRDs}, inputs: kgatewayModule().inputs(),
		make: func(ctx context.Context, m *maker, _ []Name, dir string) error {
			mod, err := moduleDir(ctx, m, kgatewayModule().dir(), "github.com/kgateway-dev/kgateway/v2")
			if err != nil {
				return err
			}
			files, err := filepath.Glob(filepath.Join(mod, "install", "helm", "kgateway-crds", "templates", "*.yaml"))
			if err != nil {
				return err
			}
			var docs [][]byte
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					return fmt.Errorf("read kgateway's module: %w", err)
				}
				docs = append(docs, b)
			}
			if len(docs) == 0 {
				return fmt.Errorf("no CRDs in %s", mod)
			}
			return explain(os.WriteFile(filepath.Join(dir, string(KgatewayCRDs)), bytes.Join(docs, []byte("\n---\n")), 0o644), "")
		},
	}
}
