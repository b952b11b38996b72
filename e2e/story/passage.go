package story

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// Gateways of the scene, by the name of their Deployments.
const (
	Plain  = "gateway"
	Native = "native-gateway"
)

// Passage is what was seen of one request on its way to orders.
type Passage struct {
	Path   string
	Status int    // what the caller got; 0: no answer
	Err    string // why there was none
	// Clear says whether the request was readable on the wire of a pod that it left or entered inside the cluster.
	Clear bool
	Hops  []Hop
}

// FromOutside sends a request through a gateway, as a client in the world outside would: TLS to the edge's certificate.
func (w *World) FromOutside(ctx context.Context, gateway string) (*Passage, error) {
	pod, err := w.pod(ctx, "edge", gateway)
	if err != nil {
		return nil, err
	}
	return w.watch(ctx, []*corev1.Pod{pod}, func(path string) (int, string, error) {
		a := w.get(ctx, fmt.Sprintf("https://%s%s", netip.AddrPortFrom(netip.MustParseAddr(pod.Status.PodIP), 8443), path))
		return a.Status, a.Err, nil
	})
}

// Exec runs a program in the first container of the pod with app=app, with standard input, output and error of the caller's, and returns its
// exit code.
func (w *World) Exec(ctx context.Context, namespace, app string, argv []string, std [3]*os.File) (int, error) {
	pod, err := w.pod(ctx, namespace, app)
	if err != nil {
		return 0, err
	}
	code, err := w.Node.ExecStd(ctx, namespace, pod.Name, "", argv, std)
	if err != nil {
		return code, fmt.Errorf("%w; no other pod of %s/%s is ready", err, namespace, app)
	}
	return code, nil
}

// DialGateway connects to a gateway's TLS port.
func (w *World) DialGateway(ctx context.Context, gateway string) (net.Conn, error) {
	pod, err := w.pod(ctx, "edge", gateway)
	if err != nil {
		return nil, err
	}
	return w.NS.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, "8443"))
}

// FromImpostor lets the pod impostor, which is in the mesh under an identity of its own, send a request to orders.
func (w *World) FromImpostor(ctx context.Context) (*Passage, error) {
	pod, err := w.pod(ctx, "edge", "impostor")
	if err != nil {
		return nil, err
	}
	return w.watch(ctx, []*corev1.Pod{pod}, func(path string) (int, string, error) {
		to := "http://orders.shop.svc.cluster.local" + path
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+pod.Status.PodIP+":8080/call?url="+url.QueryEscape(to), nil)
		if err != nil {
			return 0, "", err
		}
		res, err := w.http.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		var a apps.Answer
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
			return 0, "", fmt.Errorf("read what pod edge/impostor answered: %w", err)
		}
		return a.Status, a.Err, nil
	})
}

// get is one request of the client outside.
func (w *World) get(ctx context.Context, u string) apps.Answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return apps.Answer{Err: err.Error()}
	}
	req.Host = Hostname
	if capture.IsZtunnel() {
		// It decides an open connection by the policies that its pod had when the connection began, so that a kept one outlives STRICT.
		req.Header.Set(apps.LastHeader, "true")
	}
	res, err := w.http.Do(req)
	if err != nil {
		return apps.Answer{Err: err.Error()}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return apps.Answer{Status: res.StatusCode, Err: err.Error()}
	}
	return apps.Answer{Status: res.StatusCode, Body: string(body)}
}

// watch looks at the wires of pods and of orders while send sends a request for a path of its own.
func (w *World) watch(ctx context.Context, pods []*corev1.Pod, send func(path string) (int, string, error)) (*Passage, error) {
	orders, err := w.pod(ctx, "shop", "orders")
	if err != nil {
		return nil, err
	}
	w.calls++
	p := &Passage{Path: fmt.Sprintf("/orders/%d-%010d", w.calls, time.Now().UnixMicro()%1e10)}
	var sniffers []*node.Sniffer
	for _, pod := range append(slices.Clone(pods), orders) {
		s, err := w.Node.Sniff(pod.Namespace, pod.Name, node.Filter{})
		if err != nil {
			return nil, err
		}
		sniffers = append(sniffers, s)
	}
	since := time.Now()
	p.Status, p.Err, err = send(p.Path)
	for _, s := range sniffers {
		_, stopErr := s.Stop()
		err = errors.Join(err, stopErr)
		p.Clear = p.Clear || s.Saw([]byte("GET "+p.Path))
	}
	if err != nil {
		return nil, err
	}
	p.Hops, err = w.hops(ctx, p, pods[0], orders, since)
	return p, err
}

// pod is the only running pod with app=name.
func (w *World) pod(ctx context.Context, namespace, app string) (*corev1.Pod, error) {
	pod, err := w.podWith(ctx, namespace, client.MatchingLabels{"app": app})
	if errors.Is(err, errNoPod) {
		return nil, fmt.Errorf("no pod of %s/%s, which has the label app=%s, runs here", namespace, app, app)
	}
	return pod, err
}

var errNoPod = errors.New("no pod runs")

func (w *World) podWith(ctx context.Context, namespace string, labels client.MatchingLabels) (*corev1.Pod, error) {
	var list corev1.PodList
	if err := w.Client().List(ctx, &list, client.InNamespace(namespace), labels); err != nil {
		return nil, err
	}
	if p := best(list.Items); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w in namespace %s with labels %v", errNoPod, namespace, labels)
}

// best is a pod that lives and has an address: one that is ready before others, as one that was started anew may have crashed. Nil: there is none.
func best(pods []corev1.Pod) *corev1.Pod {
	var first *corev1.Pod
	for i := range pods {
		p := &pods[i]
		if p.DeletionTimestamp != nil || p.Status.PodIP == "" {
			continue
		}
		if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
			return p
		}
		first = cmp.Or(first, p)
	}
	return first
}

// logsOf is the end of the logs of a Deployment's pods, for errors.
func (w *World) logsOf(ctx context.Context, d *appsv1.Deployment) string {
	if d.Spec.Selector == nil {
		return ""
	}
	pod, err := w.podWith(context.WithoutCancel(ctx), d.Namespace, d.Spec.Selector.MatchLabels)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, c := range pod.Spec.Containers {
		text += fmt.Sprintf("%s: %s\n", c.Name, w.Node.Tail(pod.Namespace, pod.Name, c.Name, 20))
	}
	return text
}
