package envoyshim

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRewriteBootstrap(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"the agent's socket becomes the shim's, others stay",
			`{"static_resources":{"clusters":[{"pipe":{"path":"./etc/istio/proxy/XDS"}},{"pipe":{"path":"./var/run/secrets/workload-spiffe-uds/socket"}}]}}`,
			`{"static_resources":{"clusters":[{"pipe":{"path":"./etc/istio/proxy/SHIM"}},{"pipe":{"path":"./var/run/secrets/workload-spiffe-uds/socket"}}]}}`},
		{"without a leading dot",
			`{"a":{"path":"etc/istio/proxy/XDS"}}`, `{"a":{"path":"./etc/istio/proxy/SHIM"}}`},
		{"Istio's extension goes, and with it the empty list",
			`{"a":{"path":"./etc/istio/proxy/XDS"},"bootstrap_extensions":[{"name":"metadata_discovery","typed_config":{"@type":"type.googleapis.com/udpa.type.v1.TypedStruct","type_url":"type.googleapis.com/istio.workload.BootstrapExtension","value":{}}}]}`,
			`{"a":{"path":"./etc/istio/proxy/SHIM"}}`},
		{"Envoy's own extensions stay",
			`{"a":{"path":"./etc/istio/proxy/XDS"},"bootstrap_extensions":[{"name":"envoy.bootstrap.internal_listener","typed_config":{"@type":"type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}]}`,
			`{"a":{"path":"./etc/istio/proxy/SHIM"},"bootstrap_extensions":[{"name":"envoy.bootstrap.internal_listener","typed_config":{"@type":"type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := rewriteBootstrap([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decode(t, c.want), decode(t, string(got))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRewriteBootstrapRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no JSON":                 "{",
		"no cluster of the agent": `{"static_resources":{"clusters":[{"pipe":{"path":"./elsewhere"}}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := rewriteBootstrap([]byte(in)); err == nil {
				t.Errorf("got %s, want an error", got)
			}
		})
	}
}

func TestFlush(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"given", []string{"--file-flush-interval-msec", "1000", "-c", "x"}, []string{"--file-flush-interval-msec", "20", "-c", "x"}},
		{"not given", []string{"-c", "x"}, []string{"-c", "x", "--file-flush-interval-msec", "20"}},
	} {
		if diff := cmp.Diff(c.want, flush(c.in)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
