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
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// meshFlags say who we are in the mesh, and where its control plane is.
type meshFlags struct {
	getenv func(string) string

	istiod                          []string
	istiodName, caRoots, tokenFile  string
	serviceAccount, trustDomain     string
	clusterID, network, podIP, name string
	cert, key, roots                string
}

func (m *meshFlags) register(f *pflag.FlagSet) {
	f.StringSliceVar(&m.istiod, "istiod", []string{"istiod.istio-system.svc:15012"}, "`HOST:PORT` of istiod's TLS port; several are tried in turn")
	f.StringVar(&m.istiodName, "istiod-name", "istiod.istio-system.svc", "`NAME` in istiod's certificate, wherever --istiod leads")
	f.StringVar(&m.caRoots, "ca-roots", "/var/run/secrets/istio/root-cert.pem", "PEM `FILE` of the roots that istiod's certificate leads to (ConfigMap istio-ca-root-cert)")
	f.StringVar(&m.tokenFile, "token-file", "/var/run/secrets/tokens/istio-token", "`FILE` with the service account's token for audience istio-ca")
	f.StringVar(&m.serviceAccount, "service-account", "", "who we are, `NAMESPACE/NAME` (default: what the token says)")
	f.StringVar(&m.trustDomain, "trust-domain", "cluster.local", "trust `DOMAIN` of the mesh")
	f.StringVar(&m.clusterID, "cluster-id", "Kubernetes", "istiod's `NAME` of our cluster")
	f.StringVar(&m.network, "network", "", "Istio's `NAME` of our network (default: the mesh's own)")
	f.StringVar(&m.podIP, "pod-ip", "", "our `ADDRESS` (default: POD_IP, else the one that leads to istiod)")
}

// registerFiles adds the flags of an identity from files.
func (m *meshFlags) registerFiles(f *pflag.FlagSet) {
	f.StringVar(&m.cert, "cert", "", "PEM `FILE` with our certificate chain, instead of a certificate from istiod; needs --key and --roots")
	f.StringVar(&m.key, "key", "", "PEM `FILE` with the key of --cert")
	f.StringVar(&m.roots, "roots", "", "PEM `FILE` with the roots that peers are verified by, for --cert")
}

// check refuses values that make no sense, before anything is asked.
func (m *meshFlags) check(cmd *cobra.Command) error {
	name := cmd.CommandPath()
	if n := len(m.cert) * len(m.key) * len(m.roots); n == 0 && m.cert+m.key+m.roots != "" {
		return usagef(name, "--cert, --key and --roots belong together")
	}
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
	return nil
}

// account is the service account that we are: the flag's, else the token's.
func (m *meshFlags) account() (namespace, name string, err error) {
	if ns, sa, ok := strings.Cut(m.serviceAccount, "/"); ok {
		return ns, sa, nil
	}
	token, err := os.ReadFile(m.tokenFile)
	if err != nil {
		return "", "", &failure{what: "there is no token to show to istiod", where: m.tokenFile, err: err,
			next: "name one with --token-file: kubectl create token NAME -n NAMESPACE --audience istio-ca, or a projected volume in a pod; or use --cert, --key and --roots"}
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

// source gets our identity. It blocks until istiod has given a certificate, or until ctx ends.
func (m *meshFlags) source(ctx context.Context) (*identity.Source, error) {
	if m.cert != "" {
		// Files do not get better by waiting: one attempt.
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		s, err := file.New(ctx, file.Config{Chain: m.cert, Key: m.key, Roots: m.roots})
		if err != nil {
			return nil, &failure{what: "the identity in the files cannot be used", where: m.cert, err: err, next: "renew the certificate, or check --cert, --key and --roots"}
		}
		return s, nil
	}
	id, err := m.id()
	if err != nil {
		return nil, err
	}
	s, err := istioca.New(ctx, istioca.Config{Addresses: m.istiod, ServerName: m.istiodName, RootsFile: m.caRoots, TokenFile: m.tokenFile, ClusterID: m.clusterID, ID: id})
	if err != nil {
		return nil, explainIstiod("istiod gave no certificate for "+id.String(), m, err)
	}
	return s, nil
}

func (m *meshFlags) id() (spiffeid.ID, error) {
	ns, sa, err := m.account()
	if err != nil {
		return spiffeid.ID{}, err
	}
	td, err := spiffeid.TrustDomainFromString(m.trustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(td, "ns", ns, "sa", sa)
}

// resolver asks istiod for ways. The caller closes it.
func (m *meshFlags) resolver(ctx context.Context) (*wds.Client, error) {
	ns, sa, err := m.account()
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
		return netip.Addr{}, &failure{what: "istiod's address cannot be found", where: m.istiod[0], err: err, next: "name istiod with --istiod HOST:15012"}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
