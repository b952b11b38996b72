package clitest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// TestAPlanIsAppliedAsItWasReviewed is the way of a platform team: plan, review, apply.
func TestAPlanIsAppliedAsItWasReviewed(t *testing.T) {
	c := newCluster(t)
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := c.Run(t.Context(), "kubectl", args...)
		if err != nil {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	if err := c.Apply(t.Context(), gateway); err != nil {
		t.Fatal(err)
	}
	c.available(types.NamespacedName{Namespace: "edge", Name: "gateway"})
	c.install()
	kubectl("annotate", "--overwrite", "namespace", "shop", "isthmus.dev/edges=edge/reviewed")
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if out, err := c.Run(ctx, "kubectl", "delete", "ambientedge", "-n", "edge", "reviewed", "--ignore-not-found", "--timeout=20s"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := c.Run(ctx, "kubectl", "annotate", "namespace", "shop", "isthmus.dev/edges-"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	edge := file(t, strings.Replace(edgeYAML, "name: public", "name: reviewed", 1))

	t.Run("diff", func(t *testing.T) {
		r := c.isthmus("plan", "-f", edge, "-o", "diff")
		r.Want(t, 0, r.Stdout, "--- Namespace edge", "+++ Namespace edge", "@@", "Enrol Namespace edge", "+  labels:", "+    istio.io/dataplane-mode: ambient")
	})
	written := filepath.Join(t.TempDir(), "plan.json")
	write := func(args ...string) {
		t.Helper()
		r := c.isthmus(append([]string{"plan", "-o", "json"}, args...)...)
		r.Want(t, 0, r.Stdout, `"kind": "Plan"`)
		if err := os.WriteFile(written, []byte(r.Stdout), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("-f", edge)

	t.Run("a world that has moved is refused", func(t *testing.T) {
		kubectl("label", "namespace", "edge", "istio.io/dataplane-mode=none")
		r := c.isthmus("apply", "--plan", written)
		r.Want(t, 1, r.Stdout, "OBJECT", "FIELD", "THEN", "NOW", "Namespace edge", "metadata.labels[istio.io/dataplane-mode]", "not set", `"none"`)
		r.Want(t, 1, r.Stderr, "the world has moved", "nothing was written", "plan again")
		kubectl("label", "namespace", "edge", "istio.io/dataplane-mode-")
		if out, err := c.Run(t.Context(), "kubectl", "get", "ambientedge", "-n", "edge", "reviewed"); err == nil {
			t.Errorf("it was applied: %s", out)
		}
	})
	t.Run("dry run", func(t *testing.T) {
		r := c.isthmus("apply", "--plan", written, "--dry-run")
		r.Want(t, 0, r.Stdout, "is still what it was", "dry run")
		if out, err := c.Run(t.Context(), "kubectl", "get", "ambientedge", "-n", "edge", "reviewed"); err == nil {
			t.Errorf("it was applied: %s", out)
		}
	})
	t.Run("missing rights are named", func(t *testing.T) {
		if _, err := c.Run(t.Context(), "kubectl", "create", "clusterrolebinding", "reviews", "--clusterrole", "isthmus-view", "--user", "reviews"); err != nil {
			t.Fatal(err)
		}
		r := c.isthmus("apply", "--plan", written, "--kubeconfig", c.kubeconfig("reviews"))
		r.Want(t, 1, r.Stderr, "edge/reviewed cannot be applied", `"reviews" cannot patch resource "ambientedges"`, "isthmus-author")
	})

	r := c.isthmus("apply", "--plan", written, "--timeout", "30s")
	r.Want(t, 0, r.Stdout, "AmbientEdge edge/reviewed is applied", "Enrol", "Namespace edge", "Verify", "Deployment edge/gateway", "Ready after")
	r = c.isthmus("apply", "--plan", written)
	r.Want(t, 0, r.Stderr, "applied before")
	if out := kubectl("get", "ambientedge", "-n", "edge", "reviewed", "--show-managed-fields", "-o", "json"); !strings.Contains(out, `"isthmus-cli"`) {
		t.Errorf("it is not of field manager isthmus-cli: %s", out)
	}

	t.Run("the mesh's configuration may be read, and nothing else like it", func(t *testing.T) {
		const controller = "system:serviceaccount:isthmus-system:isthmus-controller"
		for _, q := range []struct{ what, want string }{{"configmap/istio", "yes"}, {"configmap/istio-ca-root-cert", "no"}, {"configmaps", "no"}, {"secret/istio", "no"}} {
			out, _ := c.Run(t.Context(), "kubectl", "auth", "can-i", "get", q.what, "-n", "istio-system", "--as", controller)
			if strings.TrimSpace(out) != q.want {
				t.Errorf("get %s: %q, want %s", q.what, out, q.want)
			}
		}
		r := c.isthmus("plan", "edge/reviewed")
		if strings.Contains(r.Stderr, "cannot be read") {
			t.Errorf("it says %s", r.Stderr)
		}
	})

	t.Run("the controller is held to it", func(t *testing.T) {
		kubectl("patch", "ambientedge", "-n", "edge", "reviewed", "--type=merge", "-p", `{"spec":{"waypoint":{"policy":"Create","name":"reviewed"}}}`)
		held := func() bool {
			return strings.Contains(c.isthmus("status", "edge/reviewed").Stdout, "ISM346  Error")
		}
		for begin := time.Now(); !held(); time.Sleep(200 * time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("no finding ISM346")
			}
		}
		r := c.isthmus("status", "edge/reviewed")
		r.Want(t, 0, r.Stdout, "ISM346", "the plan has changed since it was approved", "Create Gateway shop/reviewed", "fix: isthmus plan -o json edge/reviewed > plan.json")
		if out := kubectl("get", "gateways", "-n", "shop", "-o", "name"); strings.Contains(out, "reviewed") {
			t.Errorf("the waypoint was made: %s", out)
		}
		r = c.isthmus("plan", "edge/reviewed")
		r.Want(t, 1, r.Stderr, "the plan is blocked: ISM346")
	})
	t.Run("a new plan releases it", func(t *testing.T) {
		r := c.isthmus("plan", "edge/reviewed", "-o", "json")
		var doc struct {
			Changes []struct{ Deed, Kind, Name string }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
			t.Fatal(err)
		}
		if len(doc.Changes) != 2 || doc.Changes[0].Deed != "Create" || doc.Changes[0].Name != "reviewed" || doc.Changes[1].Kind != "Service" {
			t.Errorf("changes are %+v", doc.Changes)
		}
		if err := os.WriteFile(written, []byte(r.Stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"apply", "--plan", written, "--timeout", "30s"}
		if !shared.envoy {
			args = append(args, "--wait=false")
		}
		r = c.isthmus(args...)
		r.Want(t, 0, r.Stdout, "AmbientEdge edge/reviewed is applied")
		for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
			if out := kubectl("get", "gateways", "-n", "shop", "-o", "name"); strings.Contains(out, "reviewed") {
				break
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatal("the waypoint is not made")
			}
		}
	})
}
