package mesh

import (
	"io"
	"log/slog"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/node"
)

// Options say what to start. The zero value is a whole mesh with a node.
type Options struct {
	// APIOnly leaves out istiod and the node: etcd, API server and controller manager with Istio's and the Gateway API's CRDs.
	APIOnly bool
	// MeshConfig is Istio's mesh configuration as YAML. Empty: rootNamespace istio-system, HBONE, access logs to
	// standard output. It is the ConfigMap istio in istio-system, so it can be changed while istiod runs.
	MeshConfig string
	// IstiodEnv are KEY=value settings of istiod, on top of ours.
	IstiodEnv []string
	// Quick has the programs collect their garbage seldom: less processor time, and more memory than is promised. It is for tests, of which many run.
	Quick bool
	// APIServerEnv are KEY=value settings of the API server, on top of ours: GOMEMLIMIT=off for tests with thousands of objects.
	APIServerEnv []string
	// APIServerArgs are further arguments of the API server, as for an audit log.
	APIServerArgs []string
	// Images are what the node's pods may run, by image name; see node.Config.
	Images map[string]node.Image
	// Program makes images of programs of this machine; see node.Config.
	Program func(path string) (node.Image, error)
	// Capture makes the capture process of an enrolled pod. Nil: no pod is captured.
	Capture node.CaptureHook
	// Rules chooses how the node makes Services and capture; see node.Rules. Zero: as the kernel allows.
	Rules node.Rules
	// RotateTokens is the age at which a pod's token is replaced; see node.Config. Zero or negative means 80 % of its lifetime.
	RotateTokens time.Duration
	// Dir takes logs, keys and data. Empty: a temporary folder, removed by Stop unless something has failed. A folder given
	// here is made if need be, and never removed.
	Dir string
	// Timeout bounds the start, without what has to be built. Zero means 90 s; negative means no bound but the context.
	Timeout time.Duration
	// Progress takes a line a step, and what package programs says. Nil: nowhere.
	Progress io.Writer
	// Logger takes what the node says. Nil: the file node.log in the folder of logs.
	Logger *slog.Logger
}

func (o *Options) timeout() time.Duration {
	if o.Timeout == 0 {
		return 90 * time.Second
	}
	return o.Timeout
}

func (o *Options) progress() io.Writer {
	if o.Progress == nil {
		return io.Discard
	}
	return o.Progress
}

func (o *Options) meshConfig() string {
	if o.MeshConfig != "" {
		return o.MeshConfig
	}
	return "rootNamespace: istio-system\naccessLogFile: /dev/stdout\ndefaultConfig: {proxyMetadata: {ISTIO_META_ENABLE_HBONE: \"true\"}}\n"
}
