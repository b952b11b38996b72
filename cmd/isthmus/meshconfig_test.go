package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

// configReader has the mesh's configuration, or forbids it, or fails.
type configReader struct {
	client.Reader
	name, mesh string
	forbidden  bool
	err        error
}

func (r *configReader) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	c, is := o.(*corev1.ConfigMap)
	switch {
	case r.err != nil:
		return r.err
	case r.forbidden:
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, key.Name, errors.New("no"))
	case !is || key.String() != r.name:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, key.Name)
	}
	c.Data = map[string]string{"mesh": r.mesh}
	return nil
}

func (*configReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody may list")
}

func TestTheControllerLearnsFromTheMesh(t *testing.T) {
	const mesh = "trustDomain: corp.example\nrootNamespace: istio-root\ndefaultConfig: {proxyMetadata: {ISTIO_META_CLUSTER_ID: one, ISTIO_META_NETWORK: near}}"
	usual := configReader{name: "istio-system/istio", mesh: mesh}
	for _, c := range []struct {
		name string
		args []string
		r    configReader
		want [5]string // trust domain, root namespace, cluster, network, istiod
		log  string
		err  string // empty: none
	}{
		{"all of it", nil, usual, [5]string{"corp.example", "istio-root", "one", "near", "istiod.istio-system.svc:15012"}, "level=INFO", ""},
		{"flags come first", []string{"--root-namespace", "mine", "--cluster-id", "two", "--network", "far", "--istiod", "1.2.3.4:15012"}, usual, [5]string{"corp.example", "mine", "two", "far", "1.2.3.4:15012"}, "", ""},
		{"the same trust domain", []string{"--trust-domain", "corp.example"}, usual, [5]string{"corp.example", "istio-root", "one", "near", "istiod.istio-system.svc:15012"}, "", ""},
		{"another one, though it is the default", []string{"--trust-domain", "cluster.local"}, usual, [5]string{}, "", "--trust-domain says cluster.local, and the mesh's configuration corp.example"},
		{"the ConfigMap says nothing", []string{"--trust-domain", "corp.example"}, configReader{name: "istio-system/istio", mesh: "{}"},
			[5]string{"corp.example", "istio-system", "Kubernetes", "", "istiod.istio-system.svc:15012"}, "corp.example counts", ""},
		{"nobody says anything", nil, configReader{name: "istio-system/istio", mesh: "{}"}, [5]string{"cluster.local", "istio-system", "Kubernetes", "", "istiod.istio-system.svc:15012"}, "level=INFO", ""},
		{"a revision elsewhere", []string{"--istio-namespace", "mesh", "--revision", "1-31"}, configReader{name: "mesh/istio-1-31", mesh: mesh},
			[5]string{"corp.example", "istio-root", "one", "near", "istiod-1-31.mesh.svc:15012"}, "", ""},
		{"forbidden", nil, configReader{forbidden: true}, [5]string{"cluster.local", "istio-system", "Kubernetes", "", "istiod.istio-system.svc:15012"}, "let the controller's ClusterRole get ConfigMap istio", ""},
		{"forbidden, and said", []string{"--trust-domain", "corp.example"}, configReader{forbidden: true}, [5]string{"corp.example", "istio-system", "Kubernetes", "", "istiod.istio-system.svc:15012"}, "level=WARN", ""},
		{"not there", []string{"--revision", "1-31"}, usual, [5]string{"cluster.local", "istio-system", "Kubernetes", "", "istiod-1-31.istio-system.svc:15012"}, "istio-1-31", ""},
		{"the API server is away", nil, configReader{err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, [5]string{}, "", "connection refused"},
		{"it takes too long", nil, configReader{err: context.DeadlineExceeded}, [5]string{}, "", "deadline exceeded"},
		{"too many requests", nil, configReader{err: apierrors.NewTooManyRequests("later", 1)}, [5]string{}, "", "later"},
		{"an error of the API server", nil, configReader{err: apierrors.NewInternalError(errors.New("etcd"))}, [5]string{}, "", "etcd"},
		{"no YAML", nil, configReader{name: "istio-system/istio", mesh: "trustDomain: ["}, [5]string{}, "", "key mesh"},
		{"an error, and the trust domain is said", []string{"--trust-domain", "corp.example"}, configReader{err: apierrors.NewInternalError(errors.New("etcd"))},
			[5]string{"corp.example", "istio-system", "Kubernetes", "", "istiod.istio-system.svc:15012"}, "etcd", ""},
		{"a trust domain that is none", nil, configReader{name: "istio-system/istio", mesh: "trustDomain: A B"}, [5]string{}, "", "makes no sense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := parsedFlags(t, c.args)
			var log bytes.Buffer
			err := f.learnFrom(t.Context(), &c.r, slog.New(slog.NewTextHandler(&log, nil)))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || detail(err).Next == "" || detail(err).Where == "" {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			m := &f.mesh
			if got := [5]string{m.trustDomain, f.rootNamespace, m.clusterID, m.network, m.istiod[0]}; err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if !strings.Contains(log.String(), c.log) {
				t.Errorf("the log lacks %q: %s", c.log, log.String())
			}
		})
	}
}

func TestAliasesAreThoseOfFlagsAndOfTheMesh(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		mesh string
		want []string
	}{
		"of the mesh":          {nil, "trustDomainAliases: [old.example, older.example]", []string{"old.example", "older.example"}},
		"of a flag":            {[]string{"--trust-alias", "old.example"}, "{}", []string{"old.example"}},
		"of both":              {[]string{"--trust-alias", "new.example,old.example"}, "trustDomainAliases: [old.example, cluster.local]", []string{"new.example", "old.example"}},
		"none":                 {nil, "{}", nil},
		"the mesh's own alone": {nil, "trustDomainAliases: [cluster.local]", nil},
	} {
		f := parsedFlags(t, c.args)
		if err := f.learnFrom(t.Context(), &configReader{name: "istio-system/istio", mesh: c.mesh}, slog.New(slog.DiscardHandler)); err != nil || !slices.Equal(f.aliases, c.want) {
			t.Errorf("%s: got %q, %v, want %q", name, f.aliases, err, c.want)
		}
	}
}

func TestWhatIsAssumedOfAMeshIsNoted(t *testing.T) {
	c := &configFlags{}
	m, notes, err := c.read(t.Context(), &configReader{forbidden: true})
	if err != nil || m.TrustDomain != "cluster.local" || m.RootNamespace != "istio-system" || len(notes) != 1 || !strings.Contains(notes[0], "are assumed") {
		t.Errorf("got %+v, %q, %v", m, notes, err)
	}
	m, notes, err = c.read(t.Context(), &configReader{name: "istio-system/istio", mesh: "trustDomain: corp.example"})
	if err != nil || m.TrustDomain != "corp.example" || len(notes) != 0 {
		t.Errorf("got %+v, %q, %v", m, notes, err)
	}
}

// TestAPartOfTheMeshThatIsNotReadIsNoted: beside what the configuration says for sure.
func TestAPartOfTheMeshThatIsNotReadIsNoted(t *testing.T) {
	for _, trustDomain := range []string{"", "corp.example"} {
		notes, err := (&configFlags{}).settle(&ctl.Mesh{TrustDomain: trustDomain, Unread: "read ConfigMap istio-system/base: forbidden"})
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "istio-system/base: forbidden") || !strings.Contains(notes[0], "--trust-domain") {
			t.Errorf("trust domain %q: notes are %q, %v", trustDomain, notes, err)
		}
	}
}

// parsedFlags are those of a controller that is started with args.
func parsedFlags(t *testing.T, args []string) *controllerFlags {
	t.Helper()
	f := &controllerFlags{mesh: meshFlags{getenv: func(string) string { return "" }}}
	cmd := &cobra.Command{Use: "controller"}
	f.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if _, err := f.check(cmd); err != nil {
		t.Fatal(err)
	}
	return f
}
