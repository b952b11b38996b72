package node

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// TestPortForwardReachesWhatAPodServesItselfAlone is by websockets, as kubectl does it today, and by SPDY, as it did before.
func TestPortForwardReachesWhatAPodServesItselfAlone(t *testing.T) {
	ns := namespace(t, nil)
	run(t, webPod(ns, "inward", func(p *corev1.Pod) {
		p.Spec.Containers[0].Args = []string{"127.0.0.1:9000"}
		p.Spec.Containers[0].ReadinessProbe = nil
	}))
	eventually(t, "it listens", func() bool {
		c, err := shared.player.find(ns, "inward").ns().DialContext(t.Context(), "tcp", "127.0.0.1:9000")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	at := shared.cluster.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name("inward").SubResource("portforward").URL()
	websockets, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, shared.cluster.rest)
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(shared.cluster.rest)
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]httpstream.Dialer{
		"websockets": websockets, "SPDY": spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at),
	} {
		t.Run(name, func(t *testing.T) {
			var conn httpstream.Connection
			var protocol string
			err := shared.cluster.ns.Do(func() (err error) { // these dialers heed no Dial of a rest.Config
				conn, protocol, err = dialer.Dial(forwardProtocol)
				return err
			})
			if err != nil || protocol != forwardProtocol {
				t.Fatalf("protocol %q, %v", protocol, err)
			}
			defer conn.Close()
			for i := range 3 {
				if got, said := askForwarded(t, conn, i, "9000"); !strings.HasSuffix(got, "\r\n\r\n127.0.0.1:9000") || said != "" {
					t.Errorf("it answers %q, and says %q", got, said)
				}
			}
			if got, said := askForwarded(t, conn, 7, "9001"); got != "" || !strings.HasPrefix(said, "nothing answers on port 9001 of the pod") {
				t.Errorf("where nothing listens it answers %q, and says %q", got, said)
			}
			if got, said := askForwarded(t, conn, 8, "9000"); !strings.HasSuffix(got, "127.0.0.1:9000") || said != "" {
				t.Errorf("after that it answers %q, and says %q", got, said)
			}
		})
	}
}

// askForwarded sends a request to a port of the pod that a session leads to, and returns the answer, and what is said of the connection.
func askForwarded(t *testing.T, conn httpstream.Connection, id int, port string) (answer, said string) {
	t.Helper()
	open := func(kind string) httpstream.Stream {
		h := http.Header{}
		h.Set(corev1.StreamType, kind)
		h.Set(corev1.PortHeader, port)
		h.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(id))
		s, err := conn.CreateStream(h)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	errs := open(corev1.StreamTypeError)
	errs.Close()
	data := open(corev1.StreamTypeData)
	defer conn.RemoveStreams(data, errs)
	fmt.Fprintf(data, "GET /args HTTP/1.0\r\n\r\n")
	body, _ := io.ReadAll(data) // it is reset where nobody answers
	why, err := io.ReadAll(errs)
	if err != nil {
		t.Error(err)
	}
	return string(body), string(why)
}

// TestOnlyTheAPIServerIsAnsweredByTheNode: whoever else comes by the node's network gets neither logs nor connections, with a certificate of his own or without.
func TestOnlyTheAPIServerIsAnsweredByTheNode(t *testing.T) {
	var cfg Config
	at := netip.AddrPortFrom(cfg.gateway(), kubeletPort).String()
	ask := func(certs ...tls.Certificate) (string, error) {
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialContext: shared.cluster.ns.DialContext, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs},
		}}
		res, err := c.Get("https://" + at + "/containerLogs/a/b/c")
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(shared.cluster.dir, "kubelet-client.crt"), filepath.Join(shared.cluster.dir, "kubelet-client.key"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := selfSigned(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(own); err != nil || !strings.Contains(got, "no such container") {
		t.Fatalf("the API server is told %q, %v", got, err)
	}
	for name, certs := range map[string][]tls.Certificate{"nobody's": nil, "another": {other}} {
		if got, err := ask(certs...); err == nil {
			t.Errorf("with %s certificate the answer is %q", name, got)
		}
	}
	if l, err := net.DialTimeout("tcp", at, time.Second); err == nil {
		l.Close()
		t.Error("the node's port is reached from outside its world")
	}
}

// TestNodeThatDoesNotKnowItsAPIServerForwardsNothing: of whoever asks.
func TestNodeThatDoesNotKnowItsAPIServerForwardsNothing(t *testing.T) {
	for pem, wrong := range map[string]bool{"no PEM": true, string(shared.cluster.kubeletClient): false} {
		c := Config{REST: &rest.Config{}, NS: shared.cluster.ns, Dir: "x", KubeletClient: []byte(pem)}
		if err := c.validate(); (err != nil) != wrong {
			t.Errorf("certificate %.20q: %v", pem, err)
		}
	}
	w := httptest.NewRecorder()
	(&kubelet{player: &Player{}}).portForward(w, &http.Request{Method: http.MethodPost})
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "Config.KubeletClient") {
		t.Errorf("it answers %d %q", w.Code, w.Body.String())
	}
}
