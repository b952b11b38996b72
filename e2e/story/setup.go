package story

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/story/native"
	"github.com/isthmus-mesh/isthmus/e2e/story/plain"
	"github.com/isthmus-mesh/isthmus/e2e/story/state"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

//go:embed manifests
var files embed.FS

// Hostname is what the edge's certificate is for.
const Hostname = "shop.example.com"

// Funcs is what world.Enter must know.
func Funcs() world.Funcs {
	own := world.Funcs{"orders": apps.Orders, "caller": apps.Caller, "plain-gateway": plain.Main, "native-gateway": native.Main}
	return mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), own)
}

// World is the mesh of the story.
type World struct {
	*mesh.Mesh
	// Binary is the path of the isthmus command that was built.
	Binary string
	// Envoy says whether there are waypoints.
	Envoy bool
	// Took is what the start took, step by step, without building.
	Took time.Duration

	edges  client.Client // knows AmbientEdges too
	temp   *world.TempDir
	dir    string
	roots  *x509.CertPool // of the edge's certificate
	http   *http.Client   // a client outside of the mesh
	calls  int
	before state.Objects
}

// Start builds what is not there yet, starts a mesh, and sets the scene: a shop in the mesh, an edge outside of it, and the controller.
// Progress takes a line a step. The caller ends the world with Stop.
func Start(ctx context.Context, progress io.Writer) (*World, error) {
	set, err := programs.Ensure(ctx, programs.All(), progress)
	if err != nil {
		return nil, err
	}
	dir, err := world.NewTempDir("story")
	if err != nil {
		return nil, err
	}
	w := &World{temp: dir, dir: dir.Path, Envoy: set.Path(programs.Envoy) != ""}
	if err := w.start(ctx, set, progress); err != nil {
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

func (w *World) start(ctx context.Context, set programs.Set, progress io.Writer) error {
	var err error
	if w.Binary, err = programs.Isthmus(ctx, w.dir, progress); err != nil {
		return err
	}
	began := time.Now()
	images := map[string]node.Image{
		manifests.Image: {Entrypoint: []string{"/isthmus"}, Files: map[string]string{"/isthmus": w.Binary}},
	}
	for _, name := range []string{"orders", "caller", "plain-gateway", "native-gateway"} {
		images["story/"+name] = node.Image{Func: name, Files: w.commands()}
	}
	if w.Envoy {
		if images[programs.ProxyImage], err = envoyshim.Image(set); err != nil {
			return err
		}
	}
	w.Mesh, err = mesh.Start(ctx, mesh.Options{
		Images: images, Program: w.program, Progress: progress, MeshConfig: envoyshim.MeshConfig,
		Capture: capture.Hook(capture.Mesh{Roots: func() []byte { return w.RootPEM }}),
	})
	if err != nil {
		return err
	}
	log.SetLogger(logr.Discard()) // what matters is in the errors of clients
	scheme, err := run.Scheme()
	if err != nil {
		return err
	}
	if w.edges, err = client.New(w.Config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if err := w.cast(ctx); err != nil {
		return err
	}
	w.Took = time.Since(began)
	return nil
}

// cast applies the objects of the scene and waits until all of them run.
func (w *World) cast(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	install, err := manifests.Install()
	if err != nil {
		return err
	}
	if err := w.Apply(ctx, string(install)); err != nil {
		return err
	}
	for _, name := range []string{"shop", w.policies(), "edge"} {
		if err := w.ApplyFile(ctx, name); err != nil {
			return err
		}
	}
	if err := w.edgeCertificate(ctx); err != nil {
		return err
	}
	for _, d := range []types.NamespacedName{
		{Namespace: "shop", Name: "orders"}, {Namespace: "edge", Name: "gateway"},
		{Namespace: "edge", Name: "native-gateway"}, {Namespace: manifests.Namespace, Name: manifests.Controller},
	} {
		if err := w.available(ctx, d); err != nil {
			return err
		}
	}
	// istiod makes its classes a moment after it is ready.
	for _, class := range []string{"istio", "istio-remote", "istio-waypoint"} {
		err := until(ctx, func() error { return w.Client().Get(ctx, client.ObjectKey{Name: class}, &gatewayv1.GatewayClass{}) })
		if err != nil {
			return fmt.Errorf("wait for istiod's GatewayClass %s: %w", class, err)
		}
	}
	_, err = w.Node.WaitReady(ctx, "edge", "impostor")
	return err
}

// Redirected says whether plaintext that comes to captured pods is decided about too, as it is with STRICT: that takes nftables.
func (w *World) Redirected() bool { return w.Node.Rules() == node.NFTables }

// WithoutWaypoint sets the scene as on a machine without Envoy, from now on: the policies are of layer 4, and there is no waypoint. It must
// be as in the beginning, but for Strict.
func (w *World) WithoutWaypoint(ctx context.Context) error {
	if err := w.DeleteFile(ctx, w.policies()); err != nil {
		return err
	}
	w.Envoy = false
	if err := w.ApplyFile(ctx, w.policies()); err != nil {
		return err
	}
	return w.DeleteFile(ctx, "strict") // last: plaintext is refused all the time
}

// policies is the file with the rules of who may call orders.
func (w *World) policies() string {
	if w.Envoy {
		return "callers"
	}
	return "callers-l4"
}

// ApplyFile applies a file of the story by its name without .yaml.
func (w *World) ApplyFile(ctx context.Context, name string) error {
	text, err := files.ReadFile("manifests/" + name + ".yaml")
	if err != nil {
		return err
	}
	return w.Apply(ctx, string(text))
}

// DeleteFile deletes the objects of a file.
func (w *World) DeleteFile(ctx context.Context, name string) error {
	text, err := files.ReadFile("manifests/" + name + ".yaml")
	if err != nil {
		return err
	}
	return w.Delete(ctx, string(text))
}

// available waits until a Deployment has all its replicas.
func (w *World) available(ctx context.Context, key types.NamespacedName) error {
	var d appsv1.Deployment
	err := until(ctx, func() error {
		if err := w.Client().Get(ctx, key, &d); err != nil {
			return err
		}
		if d.Status.ObservedGeneration < d.Generation || d.Status.AvailableReplicas < *d.Spec.Replicas {
			return fmt.Errorf("%d of %d replicas are available", d.Status.AvailableReplicas, *d.Spec.Replicas)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("deployment %s: %w\n%s", key, err, w.logsOf(ctx, &d))
	}
	return nil
}

// until repeats f every 50 ms until it succeeds or ctx ends; the error is then f's last.
func until(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// edgeCertificate makes the edge a TLS certificate and the client outside that trusts it.
func (w *World) edgeCertificate(ctx context.Context) error {
	chain, key, err := apps.Certificate(Hostname)
	if err != nil {
		return err
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(chain)
	w.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: w.NS.DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: w.roots, ServerName: Hostname, MinVersion: tls.VersionTLS12},
	}}
	if err := os.WriteFile(w.CertificateFile(), chain, 0o644); err != nil {
		return world.Full(err)
	}
	return w.Client().Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "edge-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": chain, "tls.key": key},
	})
}

// CertificateFile is the path of the edge's certificate, for clients that shall trust it.
func (w *World) CertificateFile() string { return w.dir + "/edge.crt" }

// Stop ends everything and removes what is on disk. Logs stay when something has failed.
func (w *World) Stop() error {
	var err error
	if w.Mesh != nil {
		err = w.Mesh.Stop()
	}
	return errors.Join(err, w.temp.Remove())
}
