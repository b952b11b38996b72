package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// forwarder opens pages of pods through the API server, as kubectl port-forward does, without a port that is opened here.
type forwarder struct {
	config *rest.Config
	pods   rest.Interface
	rights rest.Interface // what its user may do
}

func forwardPages(k kubeFlags) (pages, error) {
	cfg, _, err := k.config()
	if err != nil {
		return nil, err
	}
	f := &forwarder{config: cfg}
	if f.pods, err = restClient(cfg, "/api", corev1.SchemeGroupVersion); err == nil {
		f.rights, err = restClient(cfg, "/apis", authorizationv1.SchemeGroupVersion)
	}
	if err != nil {
		return nil, explainKube("cannot reach pods", cfg.Host, err)
	}
	return f, nil
}

// restClient is a client of one group of the API. All of them together would be a seventh of the binary.
func restClient(of *rest.Config, path string, gv schema.GroupVersion) (rest.Interface, error) {
	cfg := rest.CopyConfig(of)
	cfg.APIPath, cfg.GroupVersion, cfg.NegotiatedSerializer = path, &gv, scheme.Codecs.WithoutConversion()
	return rest.RESTClientFor(cfg)
}

// page opens a page of a pod. It blocks until its head is there, or ctx ends.
func (f *forwarder) page(ctx context.Context, namespace, pod string, p edge.Page) (io.ReadCloser, error) {
	session, err := f.session(ctx, namespace, pod)
	if err != nil {
		return nil, f.explain(ctx, namespace, pod, p.Port, err)
	}
	c := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return openStream(session, p.Port) },
		},
	}
	body, err := getPage(ctx, c, fmt.Sprintf("http://localhost:%d%s", p.Port, p.Path))
	if err != nil {
		session.Close()
		return nil, err
	}
	return &sessionBody{body, session}, nil
}

// sessionBody is a page that ends its session.
type sessionBody struct {
	io.ReadCloser
	session httpstream.Connection
}

// Close ends the session.
func (b *sessionBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.session.Close()) }

// session asks the API server for a way to a pod: by websockets, or else by SPDY. What dials takes no context: where ctx ends before it has, it is left to
// itself, and what it gets is closed.
func (f *forwarder) session(ctx context.Context, namespace, pod string) (httpstream.Connection, error) {
	at := f.pods.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	websockets, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, f.config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialerForStreaming(websockets, spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at), func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	type dialled struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan dialled, 1)
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- dialled{conn, err}
	}()
	select {
	case d := <-done:
		return d.conn, d.err
	case <-ctx.Done():
		go func() {
			if d := <-done; d.conn != nil {
				d.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// explain says which right is missing, if one is, or else what to look at.
func (f *forwarder) explain(ctx context.Context, namespace, pod string, port int, err error) error {
	if ctx.Err() != nil {
		return err
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: "create", Resource: "pods", Subresource: "portforward", Name: pod,
	}}}
	var is authorizationv1.SelfSubjectAccessReview
	if f.rights.Post().Resource("selfsubjectaccessreviews").Body(review).Do(ctx).Into(&is) == nil && !is.Status.Allowed {
		return &failure{
			what: "the right to create pods/portforward in namespace " + namespace + " is missing",
			next: fmt.Sprintf("kubectl create role isthmus-inspect -n %s --verb create --resource pods/portforward, and a rolebinding to you; or name with --dump what the pod shows to who has it", namespace),
		}
	}
	return &failure{what: "cannot reach the pod through the API server", err: err, next: fmt.Sprintf("see whether this does it: kubectl port-forward -n %s pod/%s %d", namespace, pod, port)}
}

// forwardRequests is the one request of a session.
const forwardRequests = "0"

// openStream opens a connection to a port of a session's pod.
func openStream(session httpstream.Connection, port int) (net.Conn, error) {
	h := http.Header{}
	h.Set(corev1.PortHeader, strconv.Itoa(port))
	h.Set(corev1.PortForwardRequestIDHeader, forwardRequests)
	h.Set(corev1.StreamType, corev1.StreamTypeError)
	errs, err := session.CreateStream(h)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	errs.Close() // nothing is written to it
	h = h.Clone()
	h.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := session.CreateStream(h)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	c := &streamConn{Stream: data, said: make(chan string, 1)}
	go func() {
		text, _ := io.ReadAll(io.LimitReader(errs, 1<<10)) // how it begins is enough
		c.said <- strings.TrimSpace(string(text))
	}()
	return c, nil
}

// streamConn is a stream as a connection. It has no deadlines: what it belongs to is closed.
type streamConn struct {
	httpstream.Stream
	said chan string // what went wrong, once: empty if nothing did
	once sync.Once
}

// Read reads; where nothing can be read it says why.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if n > 0 || err == nil {
		return n, err
	}
	const wait = time.Second
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case text := <-c.said:
		c.said <- text
		if text != "" {
			return 0, errors.New(clean(text))
		}
	case <-timer.C:
	}
	return 0, err
}

// Close ends both directions.
func (c *streamConn) Close() (err error) {
	c.once.Do(func() { err = c.Reset() })
	return err
}

// streamAddr is what a stream has for an address.
type streamAddr struct{}

// Network names it.
func (streamAddr) Network() string { return "portforward" }

// String is its text.
func (streamAddr) String() string { return "portforward" }

// LocalAddr is no address.
func (c *streamConn) LocalAddr() net.Addr { return streamAddr{} }

// RemoteAddr is no address.
func (c *streamConn) RemoteAddr() net.Addr { return streamAddr{} }

// SetDeadline does nothing.
func (c *streamConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *streamConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*streamConn)(nil)
