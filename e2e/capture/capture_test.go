package capture_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
)

func TestLabelDecidesWhatIsOnTheWire(t *testing.T) {
	ways := []node.Rules{node.Auto, node.AnyIP}
	if capture.IsZtunnel() { // it needs nftables
		ways = ways[:1]
	}
	for _, rules := range ways {
		t.Run(rules.String(), func(t *testing.T) {
			labelDecidesWhatIsOnTheWire(t, newClusterWith(t, "wire", rules))
		})
	}
	if err := meshes[node.AnyIP].Stop(t.Failed()); err != nil { // nobody else needs it
		t.Error(err)
	}
}

func labelDecidesWhatIsOnTheWire(t *testing.T, c *cluster) {
	redirected := c.Node.Rules() == node.NFTables
	sniff := func(path string) (wires, []uint16) {
		var w wires
		// Without nftables a balancer beside the node carries what is not captured.
		for _, peer := range []netip.Addr{c.Node.PodIP(c.ns, "caller"), c.Istiod.XDS.Addr().Next()} {
			s, err := c.Node.Sniff(c.ns, "orders", node.Filter{Peer: peer})
			if err != nil {
				t.Fatal(err)
			}
			w = append(w, s)
		}
		c.eventually(path, 200)
		var ports []uint16
		for _, s := range w {
			if _, err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			ports = append(ports, s.Ports()...)
		}
		return w, ports
	}
	s, ports := sniff("/seen-in-the-clear")
	if !s.Saw([]byte("GET /seen-in-the-clear")) || slices.Contains(ports, 15008) {
		t.Errorf("not enrolled: the request is not in the clear on the wire; ports %v", ports)
	}
	if redirected { // else inbound plaintext is not the process's business
		c.wantLast("orders", func(e capture.Entry) bool {
			return e.Transport == capture.Plaintext && e.SourceIdentity == "" && e.IsAllowed()
		})
	}

	c.enrol(true)
	s, ports = sniff("/not-to-be-seen")
	if s.Saw([]byte("not-to-be-seen")) || s.Saw([]byte("HTTP/1.1")) || !slices.Contains(ports, 15008) || slices.Contains(ports, 8080) {
		t.Errorf("enrolled: in the clear on the wire, or not in a tunnel; ports %v", ports)
	}
	id := func(sa string) string { return fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", c.ns, sa) }
	c.wantLast("caller", func(e capture.Entry) bool {
		return e.Transport == capture.HBONE && e.SourceIdentity == id("caller") && e.PeerIdentity == id("orders") && e.Hop == "workload" && e.Error == ""
	})
	c.wantLast("orders", func(e capture.Entry) bool {
		return e.Transport == capture.HBONE && e.SourceIdentity == id("caller") && e.IsAllowed() && e.Status == 200
	})

	c.enrol(false)
	if s, _ := sniff("/clear-again"); !s.Saw([]byte("GET /clear-again")) {
		t.Error("taken out: the request is not in the clear on the wire")
	}
}

// wires are those of one pod with several others.
type wires []*node.Sniffer

func (w wires) Saw(text []byte) bool {
	return slices.ContainsFunc(w, func(s *node.Sniffer) bool { return s.Saw(text) })
}

func TestStrictRefusesPlaintextOnly(t *testing.T) {
	c := newCluster(t, "strict")
	c.needNFTables()
	c.eventually("/", 200)
	c.apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: strict}
spec: {selector: {matchLabels: {app: orders}}, mtls: {mode: STRICT}}
`)
	a := c.eventually("/", 0)
	if !strings.Contains(a.Err, "reset") {
		t.Errorf("the caller got %+v, want a reset connection", a)
	}
	c.logs("/", 0, "orders", func(e capture.Entry) bool {
		return !e.IsAllowed() && e.Transport == capture.Plaintext && strings.Contains(e.Policy, "strict") // the policy that STRICT becomes
	})
	c.enrol(true)
	c.eventually("/", 200)
}

func TestPolicyDecidesByIdentity(t *testing.T) {
	c := newCluster(t, "policy")
	c.enrol(true)
	c.eventually("/", 200)
	allow := func(sa string) {
		c.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: policy}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/policy/sa/` + sa + `]}}]}]
`)
	}
	allow("somebody")
	c.logs("/", 0, "orders", func(e capture.Entry) bool {
		return !e.IsAllowed() && e.SourceIdentity == "spiffe://cluster.local/ns/policy/sa/caller" && e.Status == 401
	})
	c.logs("/", 0, "caller", func(e capture.Entry) bool { return e.Status == 401 && e.Error != "" })
	allow("caller")
	c.logs("/", 200, "orders", func(e capture.Entry) bool {
		return e.IsAllowed() && (e.Policy == "policy/callers" || capture.IsZtunnel()) // which does not say what allowed
	})
}

func TestKnownPeersAreReachedWhileIstiodIsAway(t *testing.T) {
	c := newCluster(t, "away")
	c.enrol(true)
	c.eventually("/", 200)
	if err := c.StopIstiod(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.StartIstiod(c.ctx()); err != nil {
			t.Fatal(err)
		}
	}()
	if a := c.call("/while-away"); a.Status != 200 {
		t.Errorf("got %+v", a)
	}
}
