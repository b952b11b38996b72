package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
	"github.com/isthmus-mesh/isthmus/identity/sds"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

// What --identity may be.
const (
	fromIstiod = "istiod"
	fromSPIRE  = "spire"
	fromSDS    = "sds"
	fromFiles  = "files"
)

const (
	// socketVariable is where every client of the Workload API looks for the socket.
	socketVariable = "SPIFFE_ENDPOINT_SOCKET"
	// istioSocket is where Istio's agent listens. It is too long for a word of a help.
	istioFolder, istioName = "/var/run/secrets", "workload-spiffe-uds/socket"
	istioSocket            = istioFolder + "/" + istioName
)

// identityFlags say where our certificate comes from.
type identityFlags struct {
	from              string // --identity; empty: by what else is given
	cert, key, roots  string
	socket, id, hint  string
	sdsName, sdsRoots string
	authority         []string // --ca; empty: istiod
	authorityName     string
	impersonate       bool
	ttl               time.Duration
}

func (i *identityFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&i.from, "identity", "", "`SOURCE` of our certificate: istiod, spire, sds or files (default: files with --cert, else istiod)")
	f.StringVar(&i.cert, "cert", "", "files: PEM `FILE` with our certificate chain; needs --key and --roots")
	f.StringVar(&i.key, "key", "", "files: PEM `FILE` with the key of --cert")
	f.StringVar(&i.roots, "roots", "", "files: PEM `FILE` with the roots that peers are verified by")
	f.StringVar(&i.socket, "socket", "", "spire, sds: `SOCKET` of the agent, a path or unix:///path, for spire also tcp://ip:port (default: for spire "+
		socketVariable+", for sds "+istioName+" in "+istioFolder+", of Istio's agent)")
	f.StringVar(&i.id, "spiffe-id", "", "spire, sds: SPIFFE `ID` that we have to be (default: the agent's first)")
	f.StringVar(&i.hint, "spire-hint", "", "spire: `HINT` of the registration entry, where the agent has several identities for us")
	f.StringVar(&i.sdsName, "sds-name", "default", "sds: `NAME` of the certificate; to a SPIRE agent it may be a SPIFFE id")
	f.StringVar(&i.sdsRoots, "sds-roots", "ROOTCA", "sds: `NAME` of those to trust; a SPIRE agent's ALL has federated trust domains too")
	f.StringSliceVar(&i.authority, "ca", nil, "istiod: `HOST:PORT` of another authority that speaks Istio's protocol, such as istio-csr; several are tried in turn (default: --istiod)")
	f.StringVar(&i.authorityName, "ca-name", "", "istiod: `NAME` in the certificate of --ca (default: --istiod-name)")
	f.BoolVar(&i.impersonate, "impersonate", false, "istiod: ask for --service-account with the token of a node agent, an account of istiod's CA_TRUSTED_NODE_ACCOUNTS")
	f.DurationVar(&i.ttl, "cert-ttl", 24*time.Hour, "istiod: how long a certificate is to live; the authority may give less")
	completeFiles(cmd, "cert", "key", "roots", "socket")
	_ = cmd.RegisterFlagCompletionFunc("identity", cobra.FixedCompletions([]cobra.Completion{
		cobra.CompletionWithDesc(fromIstiod, "Istio's authority, by a service account's token"),
		cobra.CompletionWithDesc(fromSPIRE, "a SPIFFE Workload API"),
		cobra.CompletionWithDesc(fromSDS, "Istio's agent, or SPIRE's by secret discovery"),
		cobra.CompletionWithDesc(fromFiles, "PEM files"),
	}, cobra.ShellCompDirectiveNoFileComp))
}

// source is where the certificate comes from.
func (i *identityFlags) source() string {
	switch {
	case i.from != "":
		return i.from
	case i.cert+i.key+i.roots != "":
		return fromFiles
	}
	return fromIstiod
}

// sourceFlags are the flags that mean something for some sources only.
func sourceFlags() map[string][]string {
	return map[string][]string{
		"cert": {fromFiles}, "key": {fromFiles}, "roots": {fromFiles},
		"socket": {fromSPIRE, fromSDS}, "spiffe-id": {fromSPIRE, fromSDS}, "spire-hint": {fromSPIRE}, "sds-name": {fromSDS}, "sds-roots": {fromSDS},
		"ca": {fromIstiod}, "ca-name": {fromIstiod}, "impersonate": {fromIstiod}, "cert-ttl": {fromIstiod},
	}
}

// checkIdentity refuses values that make no sense, and flags of another source than the one that is meant.
func (m *meshFlags) checkIdentity(cmd *cobra.Command) error {
	i, name := &m.identity, cmd.CommandPath()
	from := i.source()
	if all := []string{fromIstiod, fromSPIRE, fromSDS, fromFiles}; !slices.Contains(all, from) {
		return usagef(name, "--identity takes %s, not %q", strings.Join(all, ", "), from)
	}
	of := sourceFlags()
	for _, flag := range slices.Sorted(maps.Keys(of)) {
		if of := of[flag]; cmd.Flags().Changed(flag) && !slices.Contains(of, from) {
			return usagef(name, "--%s is for --identity %s, and the identity is to come from %s: leave it out, or add --identity %s", flag, strings.Join(of, " or "), from, of[0])
		}
	}
	switch from {
	case fromFiles:
		for _, f := range []struct{ flag, value string }{{"--cert", i.cert}, {"--key", i.key}, {"--roots", i.roots}} {
			if f.value == "" {
				return usagef(name, "--cert, --key and --roots belong together: %s is missing", f.flag)
			}
		}
	case fromSPIRE, fromSDS:
		return m.checkAgent(name, from)
	case fromIstiod:
		return m.checkAuthority(name)
	}
	return nil
}

func (m *meshFlags) checkAgent(name, from string) error {
	i := &m.identity
	socket, said := m.socket(), "--socket"
	if i.socket == "" {
		said = socketVariable
	}
	switch {
	case socket == "":
		return usagef(name, "--identity spire needs --socket SOCKET, or %s in the environment: it is where the agent listens, such as unix:///run/spire/agent.sock", socketVariable)
	case !validSocket(socket, from == fromSPIRE):
		return usagef(name, "%s takes an absolute path, unix:///path or, for spire, tcp://ip:port, not %q", said, socket)
	case from == fromSDS && i.sdsName == i.sdsRoots:
		return usagef(name, "--sds-name and --sds-roots cannot both be %q: one names the certificate, the other whom to trust", i.sdsName)
	}
	if i.id != "" {
		if _, err := spiffeid.FromString(i.id); err != nil {
			return usagef(name, "--spiffe-id takes a SPIFFE id such as spiffe://%s/ns/edge/sa/gateway, not %q: %v", m.trustDomain, i.id, err)
		}
	}
	return nil
}

// socket is where the agent listens; empty when nobody says where a SPIFFE agent does.
func (m *meshFlags) socket() string {
	if m.identity.source() == fromSDS {
		return cmp.Or(m.identity.socket, istioSocket)
	}
	return cmp.Or(m.identity.socket, m.getenv(socketVariable))
}

// validSocket reports whether s names a socket, of this machine or, where tcp, of another.
func validSocket(s string, tcp bool) bool {
	if at, ok := strings.CutPrefix(s, "tcp://"); ok && tcp {
		_, err := netip.ParseAddrPort(at)
		return err == nil
	}
	return strings.HasPrefix(strings.TrimPrefix(s, "unix://"), "/")
}

func (m *meshFlags) checkAuthority(name string) error {
	i := &m.identity
	for _, a := range i.authority {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			return usagef(name, "--ca takes HOST:PORT, not %q", a)
		}
	}
	switch {
	case i.authorityName != "" && len(i.authority) == 0:
		return usagef(name, "--ca-name needs --ca; the name in istiod's own certificate is --istiod-name")
	case i.impersonate && m.serviceAccount == "":
		return usagef(name, "--impersonate needs --service-account NAMESPACE/NAME: the account of a pod on this node")
	case i.ttl < time.Second:
		return usagef(name, "--cert-ttl takes a second or more, not %v", i.ttl)
	}
	return nil
}

// source gets our identity. It blocks until there is a certificate, or until ctx ends.
func (m *meshFlags) source(ctx context.Context) (*identity.Source, error) {
	trust, err := m.trust.config(m.trustDomain)
	if err != nil {
		return nil, err
	}
	s, err := m.open(ctx, trust)
	if err != nil {
		return nil, m.explainTrust(err)
	}
	if err := m.ofTrustDomain(s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// open makes the source.
func (m *meshFlags) open(ctx context.Context, trust identity.Trust) (*identity.Source, error) {
	switch i := &m.identity; i.source() {
	case fromFiles:
		// Files do not get better by waiting: one attempt.
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		s, err := file.New(ctx, file.Config{Chain: i.cert, Key: i.key, Roots: i.roots, Trust: trust})
		if err != nil {
			return nil, &failure{what: "the identity in the files cannot be used", where: i.cert, err: err, next: "renew the certificate, or check --cert, --key and --roots"}
		}
		return s, nil
	case fromSPIRE:
		s, err := spire.New(ctx, spire.Config{Socket: m.socket(), ID: i.spiffeID(), Hint: i.hint, Trust: trust})
		if err != nil {
			return nil, explainAgent("the SPIFFE agent gave no certificate", m.socket(), err)
		}
		return s, nil
	case fromSDS:
		s, err := sds.New(ctx, sds.Config{Socket: m.socket(), Name: i.sdsName, Roots: i.sdsRoots, ID: i.spiffeID(), Trust: trust})
		if err != nil {
			return nil, explainAgent("the agent gave no certificate by secret discovery", m.socket(), err)
		}
		return s, nil
	}
	return m.fromAuthority(ctx, trust)
}

func (i *identityFlags) spiffeID() (id spiffeid.ID) {
	if i.id != "" {
		id = spiffeid.RequireFromString(i.id)
	}
	return id
}

// fromAuthority asks istiod, or another authority that speaks its protocol.
func (m *meshFlags) fromAuthority(ctx context.Context, trust identity.Trust) (*identity.Source, error) {
	ns, sa, err := m.account(true)
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromSegments(spiffeid.RequireTrustDomainFromString(m.trustDomain), "ns", ns, "sa", sa)
	if err != nil {
		return nil, &failure{what: "the service account makes no SPIFFE id", where: ns + "/" + sa, err: err, next: "name another with --service-account"}
	}
	at := m.authority()
	s, err := istioca.New(ctx, istioca.Config{
		Addresses: at.addresses, ServerName: at.name, RootsFile: m.caRoots, TokenFile: m.tokenFile, ClusterID: m.clusterID, ID: id,
		Impersonate: m.identity.impersonate, TTL: m.identity.ttl, Trust: trust,
	})
	if err != nil {
		return nil, at.explain(fmt.Sprintf("%s gave no certificate for %s", at.who, id), m, err)
	}
	return s, nil
}

// ofTrustDomain refuses a certificate that --trust-alias is not about, which would change nothing without a word.
func (m *meshFlags) ofTrustDomain(s *identity.Source) error {
	svid, err := s.GetX509SVID()
	if err != nil || len(m.trust.aliases) == 0 {
		return err
	}
	td := svid.ID.TrustDomain().Name()
	if td == m.trustDomain || slices.Contains(m.trust.aliases, td) {
		return nil
	}
	return &failure{what: "--trust-alias is about trust domain " + m.trustDomain + ", and our certificate is of another",
		where: svid.ID.String(), next: "add --trust-domain " + td}
}
