package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// publish makes the relays, and says how to use them.
func publish(ctx context.Context, dir string, w *story.World) (string, error) {
	api, err := world.Publish(ctx, func(ctx context.Context) (net.Conn, error) {
		return w.NS.DialContext(ctx, "tcp", strings.TrimPrefix(w.Config.Host, "https://"))
	})
	if err != nil {
		return "", err
	}
	edge, err := world.Publish(ctx, func(ctx context.Context) (net.Conn, error) { return w.DialGateway(ctx, story.Plain) })
	if err != nil {
		return "", err
	}
	native, err := world.Publish(ctx, func(ctx context.Context) (net.Conn, error) { return w.DialGateway(ctx, story.Native) })
	if err != nil {
		return "", err
	}
	config, err := w.KubeconfigFor(api)
	if err != nil {
		return "", err
	}
	kubeconfig := filepath.Join(dir, kubeconfigFile)
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		return "", err
	}
	if err := link(dir, w); err != nil {
		return "", err
	}
	return usage(w, dir, edge, native), nil
}

// link makes a folder for PATH with the programs that the usage names.
func link(dir string, w *story.World) error {
	bin := filepath.Join(dir, binFolder)
	if err := errors.Join(os.RemoveAll(bin), os.Mkdir(bin, 0o700)); err != nil {
		return err
	}
	for name, path := range map[string]string{
		"kubectl": w.Programs.Path(programs.Kubectl), "istioctl": w.Programs.Path(programs.Istioctl), "isthmus": w.Binary, "demo": filepath.Join(dir, programFile),
	} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

func usage(w *story.World, dir, edge, native string) string {
	curl := func(address string) string {
		_, port, _ := net.SplitHostPort(address)
		return fmt.Sprintf(`curl -w "%%{http_code}\n" --cacert %s --resolve %s:%s:127.0.0.1 https://%s:%s/orders/1`, quote(w.CertificateFile()), story.Hostname, port, story.Hostname, port)
	}
	return fmt.Sprintf(`
The world is up. At first the gateway is outside the mesh, and the shop is in it. From the folder of the clone:

  export PATH=%s:$PATH KUBECONFIG=%s

  %s
  kubectl apply -f e2e/story/manifests/strict.yaml        # the shop refuses plaintext: 502
  isthmus plan -f e2e/story/manifests/%s.yaml
  kubectl apply -f e2e/story/manifests/%s.yaml    # the gateway comes in: 200 (namespace shop has consented already)
  isthmus status -A
  kubectl apply -f e2e/story/manifests/%s.yaml           # 403, by the gateway's identity; delete it again: 200
  kubectl delete --wait=false -f e2e/story/manifests/%s.yaml
  isthmus status -A                                       # it halts, where policies depend on its waypoint
  kubectl annotate ambientedge -n edge public isthmus.dev/undo=confirmed
  kubectl delete -f e2e/story/manifests/strict.yaml       # and all is as it was: 200 in plaintext

The gateway that embeds hbone; and the way that it takes, from its pod, with its identity:

  %s
  demo exec edge/native-gateway isthmus dial orders.shop.svc.cluster.local:80 --http /orders/1

An ingress gateway of Istio's, with a route to the shop, what could be done for it, and where its Envoy sends to now:

  kubectl apply -f e2e/story/manifests/ingress.yaml
  isthmus observe edge/ingress
  isthmus inspect edge/ingress

A gateway of your own in its place, which serves TLS on :8443 and answers /healthz there (more is in hbone/README.md):

  kubectl set image -n edge deployment/native-gateway gateway=/absolute/path/of/the/program

What a policy changes takes a few seconds. kubectl logs and port-forward work; demo exec NAMESPACE/NAME takes the place of kubectl exec.
make demo-down ends it; then: unset KUBECONFIG; hash -r
`, quote(filepath.Join(dir, binFolder)), quote(filepath.Join(dir, kubeconfigFile)), curl(edge), w.EdgeFile(), w.EdgeFile(), w.DenyFile(), w.EdgeFile(), curl(native))
}

// quote is a word for the shell.
func quote(word string) string {
	if strings.ContainsFunc(word, func(r rune) bool { return strings.ContainsRune(" \t'\"\\$`&;()<>|*?", r) }) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}
