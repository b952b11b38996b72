package manifeststest

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// held is an edge that has managed: its finalizer is there.
func held(name, spec string) string {
	return strings.Replace(edge(name, spec), "metadata: {", "metadata: {finalizers: [isthmus.dev/undo], ", 1)
}

func merge(t *testing.T, c client.Client, name, patch string) error {
	t.Helper()
	return c.Patch(t.Context(), parse(edge(name, "{}")), client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll)
}

const (
	capturing     = `{mode: Manage, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}, waypoint: {policy: Create, name: w}}`
	heldObserves  = `{mode: Observe, workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: edge, name: orders}]}}`
	deleteGateway = `{apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [create, delete]}`
)

// TestWhatAnEdgeDidIsCheckedToo: taking back needs the rights that doing needed, whatever the spec says afterwards.
func TestWhatAnEdgeDidIsCheckedToo(t *testing.T) {
	m := installed(t)
	if err := m.Apply(t.Context(), held("did", capturing)+"\n---\n"+held("did-look", heldObserves)); err != nil {
		t.Fatal(err)
	}
	all := []string{patchNamespace, patchDeployment, patchService, createPolicies, deleteGateway}
	without := func(right string) (rest []string) {
		for _, r := range all {
			if r != right {
				rest = append(rest, r)
			}
		}
		return rest
	}
	for _, c := range []struct{ name, edge, lacks, patch string }{
		{"capture-none", "did", patchNamespace, `{"spec":{"capture":"None"}}`},
		{"other-workload", "did", patchDeployment, `{"spec":{"workloadRefs":[{"kind":"DaemonSet","name":"x"}]}}`},
		{"other-backend", "did", patchService, `{"spec":{"backends":{"services":[{"namespace":"shop","name":"orders"}]}}}`},
		{"no-waypoint", "did", deleteGateway, `{"spec":{"waypoint":{"policy":"None","name":null}}}`},
		{"observe-confirm", "did", createPolicies, `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}},"spec":{"mode":"Observe"}}`},
		{"looking-confirm", "did-look", createPolicies, `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}}}`},
		{"looking-none", "did-look", patchNamespace, `{"spec":{"capture":"None"}}`},
		{"finalizer", "did-look", patchService, `{"metadata":{"finalizers":null}}`},
	} {
		if err := merge(t, user(t, "undo-lacks-"+c.name, without(c.lacks)...), c.edge, c.patch); !refused(err) {
			t.Errorf("%s without %s: %v, want a refusal", c.name, c.lacks, err)
		}
	}
	able := user(t, "undo-able", append(all, `{apiGroups: [apps], resources: [daemonsets], resourceNames: [x], verbs: [patch]}`)...)
	for _, patch := range []string{
		`{"spec":{"capture":"None"}}`, `{"spec":{"workloadRefs":[{"kind":"DaemonSet","name":"x"}]}}`, `{"spec":{"waypoint":{"policy":"None","name":null}}}`,
		`{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}},"spec":{"mode":"Observe"}}`, `{"metadata":{"finalizers":null}}`,
	} {
		if err := merge(t, able, "did", patch); err != nil {
			t.Errorf("with all rights, %s: %v", patch, err)
		}
	}
}

func TestDeletionNeedsTheRightsOfUndo(t *testing.T) {
	m := installed(t)
	confirmed := strings.Replace(held("goes-confirmed", capturing), "metadata: {", "metadata: {annotations: {isthmus.dev/undo: confirmed}, ", 1)
	if err := m.Apply(t.Context(), strings.Join([]string{
		held("goes", capturing), held("goes-locked", strings.Replace(capturing, "mode: Manage", "mode: Manage, authorization: {mode: Lock}", 1)), held("goes-looking", heldObserves), edge("goes-looked", heldObserves), confirmed,
	}, "\n---\n")); err != nil {
		t.Fatal(err)
	}
	remove := func(c client.Client, name string) error {
		return c.Delete(t.Context(), parse(edge(name, "{}")), client.DryRunAll)
	}
	nobody := user(t, "nobody")
	for _, name := range []string{"goes", "goes-locked", "goes-looking", "goes-confirmed"} {
		if err := remove(nobody, name); !refused(err) {
			t.Errorf("nobody deletes %s: %v, want a refusal", name, err)
		}
	}
	if err := remove(nobody, "goes-looked"); err != nil {
		t.Errorf("nobody deletes an edge that has only observed: %v", err)
	}
	undoes := []string{patchNamespace, patchDeployment, patchService, deleteGateway}
	able := user(t, "deletion-able", undoes...)
	if err := remove(able, "goes"); err != nil {
		t.Errorf("with the rights of undo: %v", err)
	}
	if err := remove(able, "goes-locked"); !refused(err) || !strings.Contains(err.Error(), "delete AuthorizationPolicies") {
		t.Errorf("without a right to delete policies, where pods are locked: %v, want a refusal", err)
	}
	unlocks := `{apiGroups: [security.istio.io], resources: [authorizationpolicies], verbs: [delete]}`
	if err := remove(user(t, "deletion-able-unlocks", append(undoes, unlocks)...), "goes-locked"); err != nil {
		t.Errorf("with all rights, where pods are locked: %v", err)
	}
	if err := remove(able, "goes-confirmed"); !refused(err) || !strings.Contains(err.Error(), "AuthorizationPolicies") {
		t.Errorf("without a right to policies, where undo is confirmed: %v, want a refusal", err)
	}
	if err := remove(user(t, "deletion-able-policies", append(undoes, createPolicies)...), "goes-confirmed"); err != nil {
		t.Errorf("with all rights, where undo is confirmed: %v", err)
	}
	collector, err := as(m, "system:serviceaccount:kube-system:generic-garbage-collector", "system:serviceaccounts")
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(collector, "goes"); err != nil {
		t.Errorf("the garbage collector, whose owner is gone: %v", err)
	}
}

func TestANamespaceGoesWithItsEdges(t *testing.T) {
	m := installed(t)
	c, err := as(m, "system:serviceaccount:kube-system:namespace-controller", "system:serviceaccounts")
	if err != nil {
		t.Fatal(err)
	}
	ns := parse(`{apiVersion: v1, kind: Namespace, metadata: {name: ending}}`)
	if err := m.Apply(t.Context(), "{apiVersion: v1, kind: Namespace, metadata: {name: ending}}\n---\n"+strings.Replace(held("goes", manages), "namespace: edge}", "namespace: ending}", 1)); err != nil {
		t.Fatal(err)
	}
	there := parse(edge("goes", "{}"))
	there.SetNamespace("ending")
	if err := c.Delete(t.Context(), there, client.DryRunAll); !refused(err) {
		t.Errorf("while the namespace stays: %v, want a refusal", err)
	}
	if err := m.Client().Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // until admission sees that it goes
		if err = c.Delete(t.Context(), there, client.DryRunAll); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Errorf("while the namespace goes: %v", err)
	}
}

// TestUndoUnderWayIsNotDecidedByWhoeverMayWriteEdges: a confirmation that was there before counts when it is applied again, so who may do that is asked of
// every write; and without the finalizer undo ends.
func TestUndoUnderWayIsNotDecidedByWhoeverMayWriteEdges(t *testing.T) {
	m := installed(t)
	confirmed := func(name string) string {
		return strings.Replace(held(name, capturing), "metadata: {", "metadata: {annotations: {isthmus.dev/undo: confirmed}, ", 1)
	}
	if err := m.Apply(t.Context(), held("goes-slowly", capturing)+"\n---\n"+confirmed("goes-surely")+"\n---\n"+confirmed("stays-surely")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"goes-slowly", "goes-surely"} {
		if err := m.Client().Delete(t.Context(), parse(edge(name, "{}"))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, name := range []string{"goes-slowly", "goes-surely", "stays-surely"} {
			u := parse(edge(name, "{}"))
			if err := m.Client().Patch(context.Background(), u, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
				t.Error(err)
			}
		}
	})
	again := func(c client.Client, name string) error {
		u := parse(`{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: ` + name + `, namespace: edge, labels: {a: b}, annotations: {isthmus.dev/undo: confirmed}}}`)
		return c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("alice"), client.DryRunAll)
	}
	const label, off = `{"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"finalizers":null}}`
	rights := []string{patchNamespace, patchDeployment, patchService, createPolicies, deleteGateway}
	finalizes := `{apiGroups: [isthmus.dev], resources: [ambientedges/finalizers], verbs: [update]}`
	for _, c := range []struct {
		who    string
		rights []string
		may    bool
	}{
		{"nobody", nil, false},
		{"undo-under-way-lacks", []string{patchNamespace, patchDeployment, patchService, deleteGateway}, false},
		{"undo-under-way-able", rights, true},
		{"undo-under-way-finalizes", []string{finalizes}, true}, // as the controller does
	} {
		u := user(t, c.who, c.rights...)
		for what, err := range map[string]error{
			"takes the finalizer":                           merge(t, u, "goes-slowly", off),
			"takes the finalizer where undo is confirmed":   merge(t, u, "goes-surely", off),
			"labels one that has the annotation":            merge(t, u, "goes-surely", label),
			"labels one that has the annotation, and stays": merge(t, u, "stays-surely", label),
			"applies the annotation again":                  again(u, "goes-surely"),
		} {
			if c.may && err != nil || !c.may && !refused(err) {
				t.Errorf("%s %s: %v, allowed: want %t", c.who, what, err, c.may)
			}
		}
		if err := merge(t, u, "goes-slowly", label); err != nil {
			t.Errorf("%s labels one without: %v", c.who, err)
		}
	}
	if err := merge(t, user(t, "undo-under-way-finalizes", finalizes), "goes-slowly", `{"metadata":{"annotations":{"isthmus.dev/undo":"confirmed"}}}`); !refused(err) {
		t.Errorf("who may take finalizers off confirms undo: %v, want a refusal", err)
	}
}
