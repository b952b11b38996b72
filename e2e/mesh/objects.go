package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1alpha2 "sigs.k8s.io/gateway-api/apis/v1alpha2"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

// fieldOwner is the field manager of what the mesh itself applies.
const fieldOwner = client.FieldOwner("isthmus-e2e")

func schemeParts() []func(*runtime.Scheme) error {
	return []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme,
		gatewayv1.Install, gatewayv1beta1.Install, gatewayv1alpha2.Install,
		networkingv1.AddToScheme, networkingv1alpha3.AddToScheme, securityv1.AddToScheme, telemetryv1.AddToScheme,
	}
}

func (m *Mesh) makeClient() error {
	s, err := scheme()
	if err != nil {
		return err
	}
	m.client, err = client.NewWithWatch(m.Config, client.Options{Scheme: s, Log: logr.FromSlogHandler(slog.DiscardHandler)})
	return err
}

// Apply applies YAML documents by server-side apply, in their order, as field manager "isthmus-e2e". CRDs are waited for,
// so that documents behind them may use them.
func (m *Mesh) Apply(ctx context.Context, documents string) error {
	objs, err := parse(strings.NewReader(documents))
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for i := range objs {
		if err := m.apply(ctx, &objs[i]); err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes the objects of YAML documents, in the opposite order, in the foreground. Those that are not there are no error.
func (m *Mesh) Delete(ctx context.Context, documents string) error {
	objs, err := parse(strings.NewReader(documents))
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	for i := len(objs) - 1; i >= 0; i-- {
		if err := client.IgnoreNotFound(m.client.Delete(ctx, &objs[i])); err != nil {
			return fmt.Errorf("delete %s: %w", describe(&objs[i]), err)
		}
	}
	return nil
}

// parse reads YAML documents; empty ones are skipped.
func parse(r io.Reader) ([]unstructured.Unstructured, error) {
	d := yaml.NewYAMLOrJSONDecoder(r, 64<<10)
	var out []unstructured.Unstructured
	for {
		var u unstructured.Unstructured
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read document %d: %w", len(out)+1, err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

func describe(u *unstructured.Unstructured) string {
	name := u.GetName()
	if ns := u.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return u.GetKind() + " " + name
}

func (m *Mesh) apply(ctx context.Context, u *unstructured.Unstructured) error {
	what := describe(u)
	if err := m.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", what, err)
	}
	if u.GetKind() == "CustomResourceDefinition" {
		return m.waitEstablished(ctx, []string{u.GetName()})
	}
	return nil
}

// applyCRDs applies all CRDs at once, and waits until each is served.
func (m *Mesh) applyCRDs(ctx context.Context) error {
	var names []string
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, file := range []programs.Name{programs.IstioCRDs, programs.GatewayCRDs} {
		b, err := m.readFile(file)
		if err != nil {
			return err
		}
		objs, err := parse(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		for _, u := range objs {
			names = append(names, u.GetName())
			g.Go(func() error {
				err := m.client.Apply(gctx, client.ApplyConfigurationFromUnstructured(&u), fieldOwner, client.ForceOwnership)
				if err != nil {
					return fmt.Errorf("apply %s: %w", describe(&u), err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := m.waitEstablished(ctx, names); err != nil {
		return err
	}
	m.say("%d CRDs are established", len(names))
	return nil
}

// waitEstablished waits until the API server serves the CRDs.
func (m *Mesh) waitEstablished(ctx context.Context, names []string) error {
	missing := map[string]bool{}
	for _, n := range names {
		missing[n] = true
	}
	w, err := m.client.Watch(ctx, &apiextensionsv1.CustomResourceDefinitionList{})
	if err != nil {
		return fmt.Errorf("watch CRDs: %w", err)
	}
	defer w.Stop()
	for len(missing) > 0 {
		select {
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				return fmt.Errorf("watch CRDs: ended while waiting for %d of them: %v", len(missing), e.Object)
			}
			if crd, ok := e.Object.(*apiextensionsv1.CustomResourceDefinition); ok && established(crd) {
				delete(missing, crd.Name)
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for CRDs, %d of %d are not established: %w", len(missing), len(names), ctx.Err())
		}
	}
	return nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, c := range crd.Status.Conditions {
		if c.Type == apiextensionsv1.Established {
			return c.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}
