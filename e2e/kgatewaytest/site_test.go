package kgatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/controltest"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// patience is the time for anything: a pod of kgateway's ends ten seconds after it was told to.
const patience = 2 * time.Minute

// site is a pair of namespaces, EDGE with a Gateway and SHOP behind it.
type site struct {
	t             *testing.T
	mesh          *mesh.Mesh
	c             client.Client
	binary        string // isthmus
	edge, shop    string
	gateway, name string // of the Gateway and the AmbientEdge that are looked at
}

func newSite(t *testing.T, m *mesh.Mesh, name string) *site {
	t.Helper()
	return &site{t: t, mesh: m, c: controltest.Client(t, m), edge: name + "-edge", shop: name + "-shop", gateway: "http", name: "public"}
}

// of is the same site with other things looked at, or in another test.
func (s *site) of(t *testing.T, gateway, name string) *site {
	other := *s
	other.t, other.gateway, other.name = t, gateway, name
	return &other
}

func (s *site) apply(objects string) {
	s.t.Helper()
	if err := s.mesh.Apply(s.t.Context(), strings.NewReplacer("EDGE", s.edge, "SHOP", s.shop).Replace(objects)); err != nil {
		s.t.Fatal(err)
	}
}

// patch is a merge patch of an object of the namespace, as kubectl label does it.
func (s *site) patch(o client.Object, namespace, name, patch string) {
	s.t.Helper()
	o.SetNamespace(namespace)
	o.SetName(name)
	if err := s.c.Patch(s.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner("kubectl-label")); err != nil {
		s.t.Fatal(err)
	}
}

// wait looks until nothing is missing.
func (s *site) wait(what string, missing func() string) time.Duration {
	s.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		why := missing()
		if why == "" {
			return time.Since(began)
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: after %v %s", what, time.Since(began).Round(time.Millisecond), why)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// rolled waits until all pods of a Deployment are those of its present template, are ready, and no others are left.
func (s *site) rolled(namespace, name string) {
	s.t.Helper()
	s.wait("Deployment "+namespace+"/"+name+" is rolled out", func() string {
		d := &appsv1.Deployment{}
		if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, d); err != nil {
			return err.Error()
		}
		if st := &d.Status; st.ObservedGeneration != d.Generation || st.UpdatedReplicas != 1 || st.AvailableReplicas != 1 || st.Replicas != 1 {
			return fmt.Sprintf("it is not: %+v\n%s", d.Status, s.tails(namespace))
		}
		list := &corev1.PodList{}
		if err := s.c.List(s.t.Context(), list, client.InNamespace(namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
			return err.Error()
		}
		if len(list.Items) != 1 {
			return fmt.Sprintf("it has %d pods", len(list.Items))
		}
		return ""
	})
}

// tails are the ends of the logs of a namespace's pods.
func (s *site) tails(namespace string) string {
	list := &corev1.PodList{}
	if err := s.c.List(s.t.Context(), list, client.InNamespace(namespace)); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for i := range list.Items {
		for _, c := range list.Items[i].Status.ContainerStatuses {
			fmt.Fprintf(&b, "%s %s: %+v\n%s\n", list.Items[i].Name, c.Name, c.State, s.mesh.Node.Tail(namespace, list.Items[i].Name, c.Name, 10))
		}
	}
	return b.String()
}

// pod is the newest pod with a label that is not about to end.
func (s *site) pod(namespace, key, value string) *corev1.Pod {
	s.t.Helper()
	list := &corev1.PodList{}
	if err := s.c.List(s.t.Context(), list, client.InNamespace(namespace), client.MatchingLabels{key: value}); err != nil {
		s.t.Fatal(err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if len(pods) == 0 {
		s.t.Fatalf("no pod in %s has label %s=%s", namespace, key, value)
	}
	return new(slices.MaxFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) }))
}

// proxy is the gateway's pod.
func (s *site) proxy() *corev1.Pod {
	s.t.Helper()
	return s.pod(s.edge, edge.LabelGatewayName, s.gateway)
}

// accepted waits until kgateway has accepted the Gateway and all routes.
func (s *site) accepted() {
	s.t.Helper()
	s.wait("kgateway accepts the Gateway and its routes", func() string {
		g := &gatewayv1.Gateway{}
		if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.edge, Name: s.gateway}, g); err != nil {
			return err.Error()
		}
		for _, what := range []string{"Accepted", "Programmed"} {
			if c := meta.FindStatusCondition(g.Status.Conditions, what); c == nil || c.Status != metav1.ConditionTrue {
				return fmt.Sprintf("the Gateway's conditions are %+v\n%s", g.Status.Conditions, s.tails(system))
			}
		}
		routes := &gatewayv1.HTTPRouteList{}
		if err := s.c.List(s.t.Context(), routes, client.InNamespace(s.edge)); err != nil {
			return err.Error()
		}
		for _, r := range routes.Items {
			if len(r.Status.Parents) != len(r.Spec.ParentRefs) {
				return fmt.Sprintf("route %s is %+v", r.Name, r.Status.Parents)
			}
			for _, p := range r.Status.Parents {
				if p.ControllerName != "kgateway.dev/kgateway" || !meta.IsStatusConditionTrue(p.Conditions, "Accepted") || !meta.IsStatusConditionTrue(p.Conditions, "ResolvedRefs") {
					return fmt.Sprintf("route %s is %+v", r.Name, r.Status.Parents)
				}
			}
		}
		return ""
	})
}

// vip and pods are where a cluster may lead: the address of a Service on port 80, and its only pod.
func (s *site) vip(service string) upstream {
	s.t.Helper()
	o := &corev1.Service{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.shop, Name: service}, o); err != nil {
		s.t.Fatal(err)
	}
	return upstream{Static: true, To: []string{o.Spec.ClusterIP + ":80"}}
}

func (s *site) pods() upstream {
	return upstream{To: []string{s.mesh.Node.PodIP(s.shop, "orders").String() + ":8080"}}
}

// leads waits until the gateway's cluster of a Service's port leads where it should, by what kgateway has for its proxy and by what that has taken.
func (s *site) leads(service string, port int, want upstream) time.Duration {
	s.t.Helper()
	cluster := fmt.Sprintf("kube_%s_%s_%d", s.shop, service, port)
	return s.wait(fmt.Sprintf("cluster %s leads to %v", cluster, want), func() string {
		text, err := s.ask(s.pod(system, "kgateway", "kgateway"), "", "http://127.0.0.1:9095/snapshots/xds")
		if err != nil {
			return err.Error()
		}
		snapshots, err := fromSnapshots(text, s.edge, s.gateway, cluster)
		if err != nil {
			return err.Error()
		}
		sent := false
		for _, u := range snapshots { // of proxies that are gone too
			sent = sent || cmp.Equal(u, want)
		}
		if !sent {
			return fmt.Sprintf("kgateway has %v for it", snapshots)
		}
		if text, err = s.ask(s.proxy(), proxyContainer, "http://127.0.0.1:19000/config_dump?include_eds"); err != nil {
			return err.Error()
		}
		taken, err := fromDump(text, cluster)
		if err != nil {
			return err.Error()
		}
		if !cmp.Equal(taken, want) {
			return fmt.Sprintf("Envoy has %v for it", taken)
		}
		return ""
	})
}

// inspects waits until isthmus inspect, by port-forward, has the gateway's real proxy send to a Service as it should, and ends with an exit code.
func (s *site) inspects(service, result string, code int) {
	s.t.Helper()
	s.wait(fmt.Sprintf("isthmus inspect says %s of %s", result, service), func() string {
		r := command.Run(s.t, s.binary, s.mesh.NS, []string{"KUBECONFIG=" + s.mesh.Kubeconfig}, "inspect", s.edge+"/"+s.gateway, "-o", "json")
		var doc struct {
			Gateways []struct {
				Vendor   string
				Backends []struct{ Service, Result string }
			}
		}
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
			return err.Error() + r.Stderr
		}
		for _, b := range doc.Gateways[0].Backends {
			if b.Service == s.shop+"/"+service && b.Result == result && r.Code == code && doc.Gateways[0].Vendor == "kgateway" {
				return ""
			}
		}
		return fmt.Sprintf("it ends with %d, and says %s", r.Code, r.Stdout)
	})
}

// ask gets a page of a container's own. An empty container is the first.
func (s *site) ask(p *corev1.Pod, container, url string) (string, error) {
	out, err := s.mesh.Node.Exec(s.t.Context(), p.Namespace, p.Name, container, askPath, url)
	return string(out), err
}

// still makes kgateway see something that is newer than all that was done to Services before, and says whether a cluster leads where it should even then.
func (s *site) still(service string, port int, want upstream) {
	s.t.Helper()
	mark := fmt.Sprintf("mark%d", time.Now().UnixNano())
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: ` + mark + `, namespace: SHOP}, spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}}`)
	cluster := fmt.Sprintf("kube_%s_%s_80", s.shop, mark)
	s.wait("the gateway has cluster "+cluster, func() string {
		text, err := s.ask(s.proxy(), proxyContainer, "http://127.0.0.1:19000/config_dump")
		if err != nil {
			return err.Error()
		}
		if _, err := fromDump(text, cluster); err != nil {
			return err.Error()
		}
		return ""
	})
	s.leads(service, port, want)
	o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.shop, Name: mark}}
	if err := s.c.Delete(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// answers waits until a request from outside, through the gateway, is answered with a status.
func (s *site) answers(path string, want int) time.Duration {
	s.t.Helper()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	return s.wait(fmt.Sprintf("%s is answered with %d", path, want), func() string {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.proxy().Status.PodIP+":8080"+path, nil)
		if err != nil {
			return err.Error()
		}
		res, err := c.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		if res.StatusCode != want {
			return res.Status
		}
		return ""
	})
}

// logged are the lines of a request in the waypoint's log; with some, it waits for the first.
func (s *site) logged(path string, some bool) (list []accesslog.Request) {
	s.t.Helper()
	p := s.pod(s.shop, edge.LabelGatewayName, "shared")
	s.wait("the waypoint has logged "+path, func() string {
		text, err := os.ReadFile(s.mesh.Node.LogPath(p.Namespace, p.Name, "istio-proxy"))
		if err != nil {
			return err.Error()
		}
		list = slices.DeleteFunc(accesslog.Requests(string(text)), func(r accesslog.Request) bool { return r.Path != path })
		if some && len(list) == 0 {
			return "it has not"
		}
		return ""
	})
	return list
}

func (s *site) theEdge() *v1alpha1.AmbientEdge {
	return &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Namespace: s.edge, Name: s.name}}
}

// status waits until the AmbientEdge's status, of its present generation, is as it should be.
func (s *site) status(what string, missing func(*v1alpha1.AmbientEdge) string) (*v1alpha1.AmbientEdge, time.Duration) {
	s.t.Helper()
	e := s.theEdge()
	took := s.wait("AmbientEdge: "+what, func() string {
		if err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(e), e); err != nil {
			return err.Error()
		}
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		why := "nothing about this generation"
		if c != nil && c.ObservedGeneration == e.Generation {
			if why = missing(e); why == "" {
				return ""
			}
		}
		text, err := json.MarshalIndent(e.Status, "", " ")
		if err != nil {
			return err.Error()
		}
		return why + "; its status is " + string(text)
	})
	return e, took
}

// ready waits for a reason of its condition Ready.
func (s *site) ready(reason string) (*v1alpha1.AmbientEdge, time.Duration) {
	s.t.Helper()
	return s.status("Ready for the reason "+reason, func(e *v1alpha1.AmbientEdge) string {
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		if c.Reason != reason || (c.Status == metav1.ConditionTrue) != (reason == v1alpha1.ReasonDone) {
			return "it is for " + c.Reason
		}
		return ""
	})
}

// finding is the one with a code about an object.
func finding(e *v1alpha1.AmbientEdge, code, object string) *v1alpha1.Finding {
	at := slices.IndexFunc(e.Status.Findings, func(f v1alpha1.Finding) bool { return f.Code == code && f.Object == object })
	if at < 0 {
		return nil
	}
	return &e.Status.Findings[at]
}

func (s *site) gone(o client.Object) time.Duration {
	s.t.Helper()
	return s.wait(fmt.Sprintf("%T %s is gone", o, o.GetName()), func() string {
		err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return ""
		}
		text, _ := json.MarshalIndent(o, "", " ") // an object of the API server's
		return string(text)
	})
}

// state is all that an edge, or kgateway because of it, could write to, as text by object.
func (s *site) state() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, gvk := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "Namespace"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "ServiceAccount"}, {Version: "v1", Kind: "ConfigMap"},
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"},
		{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrant"}, {Group: "security.istio.io", Version: "v1", Kind: "AuthorizationPolicy"},
		{Group: "gateway.kgateway.dev", Version: "v1alpha1", Kind: "GatewayParameters"}, {Group: "gateway.kgateway.dev", Version: "v1alpha1", Kind: "TrafficPolicy"},
	} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		if err := s.c.List(s.t.Context(), list); err != nil {
			s.t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if ns := o.GetNamespace() + o.GetName(); !strings.HasPrefix(ns, s.edge) && !strings.HasPrefix(ns, s.shop) {
				continue
			}
			for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			// The Deployment controller counts rollouts, ours and that of their undoing.
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
			delete(o.Object, "status")
			text, err := json.MarshalIndent(o.Object, "", " ")
			if err != nil {
				s.t.Fatal(err)
			}
			all[gvk.Kind+" "+o.GetNamespace()+"/"+o.GetName()] = string(text)
		}
	}
	return all
}
