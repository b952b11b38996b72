package capture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ZtunnelEnv is the environment variable with the absolute path of a real ztunnel, to run instead of this package's own process.
const ZtunnelEnv = "ISTHMUS_ZTUNNEL"

// IsZtunnel reports whether Hook starts a real ztunnel. Its access log says less, and it is always lenient (Mesh.Lenient).
func IsZtunnel() bool { return os.Getenv(ZtunnelEnv) != "" }

// ztunnelReady is ztunnel's readiness endpoint in dedicated mode.
const ztunnelReady = "http://127.0.0.1:15021/healthz/ready"

// runZtunnel runs a real ztunnel for the one pod until ctx ends, and says when it is ready.
func runZtunnel(ctx context.Context, cfg *config) error {
	if cfg.ServicePorts != "" {
		return errors.New("start " + ZtunnelEnv + ": it needs redirection by nftables, which this machine does not allow: unset it, or run on another")
	}
	cmd := exec.CommandContext(ctx, cfg.Ztunnel, "proxy", "ztunnel")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = drainTime
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"PROXY_MODE=dedicated",
		"PROXY_WORKLOAD_INFO="+cfg.Namespace+"/"+cfg.Pod+"/"+cfg.ServiceAccount,
		"AUTH_TOKEN="+cfg.TokenFile,
		"CA_ADDRESS=https://"+cfg.Istiod, "XDS_ADDRESS=https://"+cfg.Istiod,
		"ALT_CA_HOSTNAME="+cfg.ServerName, "ALT_XDS_HOSTNAME="+cfg.ServerName,
		"CA_ROOT_CA="+cfg.RootsFile, "XDS_ROOT_CA="+cfg.RootsFile,
		"CLUSTER_ID="+cfg.ClusterID, "NODE_NAME="+cfg.Node, "POD_NAME="+cfg.Pod, "POD_NAMESPACE="+cfg.Namespace,
		"SERVICE_ACCOUNT="+cfg.ServiceAccount, "INSTANCE_IP="+cfg.IP.String(),
		fmt.Sprintf("PACKET_MARK=%d", ownMark),
		"LOG_FORMAT=json", "RUST_LOG=info,access=debug", // what Entries reads
	)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start ISTHMUS_ZTUNNEL: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("ztunnel ended before it was ready: %w", err)
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, ztunnelReady, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			break
		}
	}
	if err := sayReady(); err != nil {
		return err
	}
	return <-ended
}
