package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ctl "github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// meshFlags say who we are in the mesh, and where its control plane is.
type meshFlags struct {
	getenv   func(string) string
	identity identityFlags
	trust    trustFlags

	istiod                          []string
	istiodName, caRoots, tokenFile  string
	serviceAccount, trustDomain     string
	clusterID, network, podIP, name string

	at    ctl.Istiod
	given map[string]bool // flags that were set
}

func (m *meshFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&m.istiod, "istiod", []string{"istiod.istio-system.svc:15012"}, "`HOST:PORT` of istiod's TLS port; several are tried in turn")
	f.StringVar(&m.istiodName, "istiod-name", "istiod.istio-system.svc", "`NAME` in istiod's certificate, wherever --istiod leads")
	f.StringVar(&m.caRoots, "ca-roots", "/var/run/secrets/istio/root-cert.pem", "PEM `FILE` of the roots that istiod's certificate leads to (ConfigMap istio-ca-root-cert)")
	f.StringVar(&m.tokenFile, "token-file", "/var/run/secrets/tokens/istio-token", "`FILE` with the service account's token for audience istio-ca")
	f.StringVar(&m.serviceAccount, "service-account", "", "who we are, `NAMESPACE/NAME` (default: what the token says)")
	f.StringVar(&m.trustDomain, "trust-domain", "cluster.local", "trust `DOMAIN` of the mesh")
	f.StringVar(&m.clusterID, "cluster-id", "Kubernetes", "istiod's `NAME` of our cluster")
	f.StringVar(&m.network, "network", "", "Istio's `NAME` of our network (default: the mesh's own)")
	f.StringVar(&m.podIP, "pod-ip", "", "our `ADDRESS` (default: POD_IP, else the one that leads to istiod)")
	registerIstiod(cmd, &m.at)
	completeFiles(cmd, "ca-roots", "token-file")
	m.identity.register(cmd)
	m.trust.register(cmd)
}

// locate notes which flags were set, and finds istiod by namespace and revision where its address is not given.
func (m *meshFlags) locate(cmd *cobra.Command) {
	m.given = map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { m.given[f.Name] = true })
	if !m.given["istiod"] {
		m.istiod = []string{m.at.Service() + ":15012"}
	}
	if !m.given["istiod-name"] {
		m.istiodName = m.at.Service()
	}
}

// check refuses values that make no sense, before anything is asked.
func (m *meshFlags) check(cmd *cobra.Command) error {
	m.locate(cmd)
	name := cmd.CommandPath()
	for _, a := range m.istiod {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			return usagef(name, "--istiod takes HOST:PORT, not %q", a)
		}
	}
	if len(m.istiod) == 0 {
		return usagef(name, "--istiod is empty")
	}
	if _, err := spiffeid.TrustDomainFromString(m.trustDomain); err != nil {
		return usagef(name, "--trust-domain: %v", err)
	}
	if m.podIP != "" {
		if _, err := netip.ParseAddr(m.podIP); err != nil {
			return usagef(name, "--pod-ip takes an IP address, not %q", m.podIP)
		}
	}
	if m.serviceAccount != "" {
		if ns, sa, ok := strings.Cut(m.serviceAccount, "/"); !ok || ns == "" || sa == "" || strings.Contains(sa, "/") {
			return usagef(name, "--service-account takes NAMESPACE/NAME, not %q", m.serviceAccount)
		}
	}
	if _, err := m.trust.config(m.trustDomain); err != nil {
		return usagef(name, "%v", err)
	}
	return m.checkIdentity(cmd)
}

// noToken is what to do without a token for istiod.
const noToken = "name one with --token-file: kubectl create token NAME -n NAMESPACE --audience istio-ca, or a projected volume in a pod; "

// account is the service account that we are: the flag's, else the token's. Who impersonates is another to istiod than to peers.
func (m *meshFlags) account(toPeers bool) (namespace, name string, err error) {
	if ns, sa, ok := strings.Cut(m.serviceAccount, "/"); ok && (toPeers || !m.identity.impersonate) {
		return ns, sa, nil
	}
	next := noToken + "or ask for no way: isthmus dial has --via and --peer"
	if toPeers {
		next = noToken + "or take the identity from elsewhere: --identity spire, sds or files"
	}
	token, err := os.ReadFile(m.tokenFile)
	if err != nil {
		return "", "", &failure{what: "there is no token to show to istiod", where: m.tokenFile, err: err, next: next}
	}
	sub, err := subject(string(token))
	if err == nil {
		if parts := strings.Split(sub, ":"); len(parts) == 4 && parts[0] == "system" && parts[1] == "serviceaccount" {
			return parts[2], parts[3], nil
		}
		err = fmt.Errorf("it is of %q", sub)
	}
	return "", "", &failure{what: "the token is not that of a service account", where: m.tokenFile, err: err,
		next: "make one with: kubectl create token NAME -n NAMESPACE --audience istio-ca"}
}

// subject reads whom a JWT is of. Nothing is verified: istiod does that.
func subject(token string) (string, error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return "", errors.New("it is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errors.New("it is no JWT: its payload is not base64")
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", errors.New("it is no JWT: its payload is not JSON")
	}
	return claims.Sub, nil
}

// resolver asks istiod for ways. The caller closes it.
func (m *meshFlags) resolver(ctx context.Context) (*wds.Client, error) {
	ns, sa, err := m.account(false)
	if err != nil {
		return nil, err
	}
	ip, err := m.address(ctx)
	if err != nil {
		return nil, err
	}
	pod := cmp.Or(m.name, m.getenv("POD_NAME"))
	if pod == "" {
		if pod, err = os.Hostname(); err != nil {
			pod = "isthmus"
		}
	}
	return wds.New(wds.Config{Addresses: m.istiod, ServerName: m.istiodName, RootsFile: m.caRoots, TokenFile: m.tokenFile,
		Node: wds.Node{IP: ip, Pod: pod, Namespace: ns, ServiceAccount: sa, ClusterID: m.clusterID, Network: m.network}})
}

// reachIstiod is how istiod is reached from where its name does not resolve.
func (m *meshFlags) reachIstiod() string {
	return fmt.Sprintf("name istiod with --istiod HOST:15012; from outside the cluster: kubectl -n %s port-forward deploy/istiod 15012, and --istiod 127.0.0.1:15012", m.at.Home())
}

// address is our own: what is configured, else that of the interface towards istiod. Nothing is sent.
func (m *meshFlags) address(ctx context.Context) (netip.Addr, error) {
	if text := cmp.Or(m.podIP, m.getenv("POD_IP")); text != "" {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Addr{}, &failure{what: "our own address makes no sense", where: "POD_IP", err: err, next: "set --pod-ip"}
		}
		return ip, nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", m.istiod[0])
	if err != nil {
		return netip.Addr{}, &failure{what: "istiod's address cannot be found", where: m.istiod[0], err: err, next: m.reachIstiod()}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
