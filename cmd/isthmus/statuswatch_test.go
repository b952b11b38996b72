package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestStatusesAreShownAgainWhenTheyChange: once for each change, though a note of how long ago something was is always another.
func TestStatusesAreShownAgainWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, output: outputText, getenv: func(string) string { return "" }}
		modes := []v1alpha1.Mode{v1alpha1.ModeObserve, v1alpha1.ModeObserve, v1alpha1.ModeManage, v1alpha1.ModeManage}
		reads := 0
		err := a.statusWatch(ctx, false, func(context.Context) (*statusDocument, string, error) {
			doc := &statusDocument{Edges: []edgeStatus{{Namespace: "edge", Name: "public", Mode: modes[reads]}}, Notes: []string{strings.Repeat("ago ", reads+1)}}
			if reads++; reads == len(modes) {
				cancel()
			}
			return doc, "", nil
		})
		if err != nil || reads != len(modes) {
			t.Errorf("after %d reads: %v", reads, err)
		}
		if n := strings.Count(out.String(), "public"); n != 2 || strings.Count(out.String(), "note: ") != 2 {
			t.Errorf("it is not shown twice:\n%s", out.String())
		}
	})
	r := isthmus(t, "status", "--watch", "--require-ready")
	r.want(t, exitUsage, r.stderr, "--watch and --require-ready exclude each other")
}

// TestAWatchOfStatusesOutlivesOutages: it tells once that it cannot read, asks less and less often, and tells when it can. What is gone ends it, and so
// does an error before anything was shown.
func TestAWatchOfStatusesOutlivesOutages(t *testing.T) {
	away := explainKube("cannot read AmbientEdge edge/public", "", errors.New("connection refused"))
	gone := apierrors.NewNotFound(schema.GroupResource{Group: "isthmus.dev", Resource: "ambientedges"}, "public")
	for name, c := range map[string]struct {
		reads []error // in order; the last ends it
		want  error
		took  time.Duration
		said  []string // on standard error, in order
	}{
		"an outage":                  {[]error{nil, away, away, away, nil, context.Canceled}, nil, (1 + 2 + 4 + 8 + 1) * time.Second, []string{"connection refused", "can be read again"}},
		"two":                        {[]error{nil, away, nil, away, nil, context.Canceled}, nil, (1 + 2 + 1 + 2 + 1) * time.Second, []string{"connection refused", "can be read again", "connection refused", "can be read again"}},
		"a long one":                 {[]error{nil, away, away, away, away, away, away, away, context.Canceled}, nil, (1 + 2 + 4 + 8 + 16 + 30 + 30 + 30) * time.Second, []string{"connection refused"}},
		"away from the beginning":    {[]error{away}, away, 0, nil},
		"the AmbientEdge is deleted": {[]error{nil, explainKube("cannot read AmbientEdge edge/public", "", gone)}, gone, time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var out, talk bytes.Buffer
				a := &app{stdout: &out, stderr: &talk, output: outputText, getenv: func(string) string { return "" }}
				begin, reads := time.Now(), 0
				err := a.statusWatch(ctx, false, func(context.Context) (*statusDocument, string, error) {
					err := c.reads[reads]
					if reads++; errors.Is(err, context.Canceled) {
						cancel()
					}
					return &statusDocument{Edges: []edgeStatus{{Namespace: "edge", Name: "public"}}}, "", err
				})
				if reads != len(c.reads) || !errors.Is(err, c.want) || time.Since(begin) != c.took {
					t.Errorf("after %d reads and %v: %v", reads, time.Since(begin), err)
				}
				lines := slices.Collect(strings.Lines(talk.String()))
				if len(lines) != len(c.said) {
					t.Fatalf("it says %q", lines)
				}
				for i, want := range c.said {
					if !strings.HasPrefix(lines[i], "note: ") || !strings.Contains(lines[i], want) {
						t.Errorf("it says %q, want %q", lines[i], want)
					}
				}
			})
		})
	}
}

// TestAWatchOfStatusesHasOneClient: what that has found out of the API server, and its connections, are kept.
func TestAWatchOfStatusesHasOneClient(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path]++
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api":
			fmt.Fprint(w, `{"kind": "APIVersions", "versions": ["v1"]}`)
		case "/apis":
			fmt.Fprint(w, `{"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": "isthmus.dev", "versions": [{"groupVersion": "isthmus.dev/v1alpha1", "version": "v1alpha1"}]}]}`)
		case "/apis/isthmus.dev/v1alpha1":
			fmt.Fprint(w, `{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "isthmus.dev/v1alpha1", "resources": [{"name": "ambientedges", "namespaced": true, "kind": "AmbientEdge", "verbs": ["list"]}]}`)
		case "/apis/isthmus.dev/v1alpha1/ambientedges":
			fmt.Fprint(w, `{"kind": "AmbientEdgeList", "apiVersion": "isthmus.dev/v1alpha1", "items": []}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "config")
	config := "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: '" + server.URL + "'}}], contexts: [{name: east, context: {cluster: c}}], current-context: east}"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	read := (&statusFlags{all: true, kube: kubeFlags{kubeconfig: path, timeout: 10 * time.Second}}).reader(nil)
	for range 3 {
		if doc, _, err := read(t.Context()); err != nil || len(doc.Edges) != 0 {
			t.Fatalf("%+v, %v", doc, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["/apis/isthmus.dev/v1alpha1/ambientedges"] != 3 || asked["/apis/isthmus.dev/v1alpha1"] != 1 {
		t.Errorf("it has asked %v", asked)
	}
}
