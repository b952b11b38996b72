package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
)

// What --crl-expired may be.
const (
	expiredKeep   = "keep"
	expiredRefuse = "refuse"
)

// trustFlags say whom to believe beside whom the source of our identity names, and whom no more.
type trustFlags struct {
	aliases, additional, federated []string
	crl, crlExpired                string
}

func (t *trustFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&t.aliases, "trust-alias", nil, "trust `DOMAIN` that is one with --trust-domain, as in Istio's trustDomainAliases; may be repeated")
	f.StringSliceVar(&t.additional, "trust-additional", nil, "trust `DOMAIN` that our roots vouch for as well, and that is not ours; may be repeated")
	f.StringArrayVar(&t.federated, "trust-federated", nil, "`DOMAIN=FILE`: a trust domain and a PEM file with roots of it; may be repeated")
	f.StringVar(&t.crl, "crl", "", "`FILE` with lists of revoked certificates, PEM or DER, to believe no more (ConfigMap istio-ca-crl)")
	f.StringVar(&t.crlExpired, "crl-expired", expiredKeep, "`POLICY` for a list of --crl that is overdue: keep it, or refuse who its issuer has signed")
	completeFiles(cmd, "crl")
	_ = cmd.RegisterFlagCompletionFunc("crl-expired", cobra.FixedCompletions([]cobra.Completion{expiredKeep, expiredRefuse}, cobra.ShellCompDirectiveNoFileComp))
}

// config is what the flags say; own is --trust-domain.
func (t *trustFlags) config(own string) (out identity.Trust, err error) {
	domain := func(flag, text string) (spiffeid.TrustDomain, error) {
		td, err := spiffeid.TrustDomainFromString(text)
		if err != nil {
			return td, fmt.Errorf("%s: %w", flag, err)
		}
		return td, nil
	}
	ours, err := domain("--trust-domain", own)
	if err != nil {
		return out, err
	}
	seen := map[spiffeid.TrustDomain]string{ours: "--trust-domain"}
	once := func(flag, text string) (spiffeid.TrustDomain, error) {
		td, err := domain(flag, text)
		if err != nil {
			return td, err
		}
		if before := seen[td]; before != "" {
			return td, fmt.Errorf("%s names %s, which %s has named already: name each trust domain once", flag, td, before)
		}
		seen[td] = flag
		return td, nil
	}
	set := []spiffeid.TrustDomain{ours}
	for _, text := range t.aliases {
		td, err := once("--trust-alias", text)
		if err != nil {
			return out, err
		}
		set = append(set, td)
	}
	if len(set) > 1 {
		out.Aliases = [][]spiffeid.TrustDomain{set}
	}
	for _, text := range t.additional {
		td, err := once("--trust-additional", text)
		if err != nil {
			return out, err
		}
		out.Additional = append(out.Additional, td)
	}
	for _, text := range t.federated {
		name, path, ok := strings.Cut(text, "=")
		if !ok || path == "" {
			return out, fmt.Errorf("--trust-federated takes DOMAIN=FILE, not %q", text)
		}
		td, err := domain("--trust-federated", name) // it may be one of those above: these are further roots of it
		if err != nil {
			return out, err
		}
		if before := out.Federated[td]; before != "" {
			return out, fmt.Errorf("--trust-federated names %s twice, with %s and %s: put all roots of a trust domain into one file", td, before, path)
		}
		if out.Federated == nil {
			out.Federated = map[spiffeid.TrustDomain]string{}
		}
		out.Federated[td] = path
	}
	switch t.crlExpired {
	case expiredKeep, "":
	case expiredRefuse:
		out.ExpiredCRL = identity.ExpiredCRLRefuse
	default:
		return out, fmt.Errorf("--crl-expired takes %s or %s, not %q", expiredKeep, expiredRefuse, t.crlExpired)
	}
	if out.CRLFile = t.crl; t.crl == "" && out.ExpiredCRL != identity.ExpiredCRLKeep {
		return out, errors.New("--crl-expired needs --crl, the file with the lists")
	}
	return out, nil
}

// explainTrust makes an error about a file of --crl or --trust-federated one of that file.
func (m *meshFlags) explainTrust(err error) error {
	text := err.Error()
	if m.trust.crl != "" && strings.Contains(text, "revocation lists in "+m.trust.crl) {
		return &failure{what: "the lists of revoked certificates cannot be used", where: m.trust.crl, err: innermost(err),
			next: "write them with: kubectl get configmap istio-ca-crl -o jsonpath='{.data.ca-crl\\.pem}', or correct --crl"}
	}
	for _, pair := range m.trust.federated {
		if _, path, _ := strings.Cut(pair, "="); strings.Contains(text, path) {
			return &failure{what: "the roots of a federated trust domain cannot be used", where: path, err: innermost(err), next: "correct --trust-federated " + pair}
		}
	}
	return err
}

// innermost is err without what this command has put around it.
func innermost(err error) error {
	if f, ok := errors.AsType[*failure](err); ok && f.err != nil {
		return f.err
	}
	return err
}
