package sds

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
)

// Types of the answers.
const (
	secretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	validatorType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
)

const (
	maxChain   = 16  // certificates of a chain
	maxRoots   = 512 // certificates of a domain
	maxDomains = 512
)

// message is a protobuf message by its fields; of a field that comes again the last one counts, but for those in lists.
type message map[protowire.Number][][]byte

// parse reads fields of length-delimited types and leaves out the others.
func parse(b []byte) (message, error) {
	m := message{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return nil, protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m[num] = append(m[num], v)
		b = b[n:]
	}
	return m, nil
}

// bytes is a field, nil when it is not there.
func (m message) bytes(num protowire.Number) []byte {
	if all := m[num]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// message is a field that is one.
func (m message) message(num protowire.Number) (message, error) { return parse(m.bytes(num)) }

// inline is what a DataSource has; empty for none.
func (m message) inline(num protowire.Number) ([]byte, error) {
	if len(m[num]) == 0 {
		return nil, nil
	}
	source, err := m.message(num)
	if err != nil {
		return nil, err
	}
	for _, n := range []protowire.Number{2, 3} { // inline_bytes, inline_string
		if b := source.bytes(n); b != nil {
			return b, nil
		}
	}
	return nil, errors.New("the secret is elsewhere (a file or a variable), and only what comes inline is taken")
}

// secret reads the Secret of that name.
func secret(b []byte, name string) (message, error) {
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	if got := string(m.bytes(1)); got != name {
		return nil, fmt.Errorf("it is called %q", got)
	}
	return m, nil
}

// parseCertificate reads a Secret with a TLS certificate.
func parseCertificate(b []byte, name string) (*x509svid.SVID, error) {
	m, err := secret(b, name)
	if err != nil {
		return nil, err
	}
	if len(m[2]) == 0 {
		return nil, errors.New("it is no TLS certificate: see Config.Name")
	}
	tls, err := m.message(2)
	if err != nil {
		return nil, err
	}
	if len(tls[6]) > 0 {
		return nil, errors.New("its key is with a private key provider, and only what comes inline is taken")
	}
	text, err := tls.inline(1)
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	chain, err := pemtext.Certificates(text, maxChain)
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if text, err = tls.inline(2); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	key, err := pemtext.Key(text)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	id, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, nil
}

// roots are what a Secret with a validation context brings: one set for the domain of the certificate, or one for each domain.
type roots struct {
	own     *x509bundle.Bundle // of a domain that is not named; else nil
	domains *x509bundle.Set
}

// parseRoots reads a Secret with a validation context.
func parseRoots(b []byte, name string) (*roots, error) {
	m, err := secret(b, name)
	if err != nil {
		return nil, err
	}
	if len(m[4]) == 0 {
		return nil, errors.New("it is no validation context: see Config.Roots")
	}
	ctx, err := m.message(4)
	if err != nil {
		return nil, err
	}
	r := &roots{domains: x509bundle.NewSet()}
	text, err := ctx.inline(1)
	if err != nil {
		return nil, fmt.Errorf("trusted CA: %w", err)
	}
	if text != nil {
		certs, err := pemtext.Certificates(text, maxRoots)
		if err != nil {
			return nil, fmt.Errorf("trusted CA: %w", err)
		}
		r.own = x509bundle.FromX509Authorities(spiffeid.TrustDomain{}, certs)
	}
	if len(ctx[12]) > 0 {
		if err := r.addValidator(ctx); err != nil {
			return nil, fmt.Errorf("validator: %w", err)
		}
	}
	if r.own == nil && r.domains.Len() == 0 {
		return nil, errors.New("it has no roots")
	}
	return r, nil
}

// addValidator reads the SPIFFE validator of a validation context.
func (r *roots) addValidator(ctx message) error {
	custom, err := ctx.message(12)
	if err != nil {
		return err
	}
	typed, err := custom.message(2)
	if err != nil {
		return err
	}
	if kind := string(typed.bytes(1)); kind != validatorType {
		return fmt.Errorf("it is a %q, and only the one for SPIFFE is known", kind)
	}
	config, err := typed.message(2)
	if err != nil {
		return err
	}
	if len(config[1]) > maxDomains {
		return fmt.Errorf("it has more than %d trust domains", maxDomains)
	}
	for _, b := range config[1] {
		domain, err := parse(b)
		if err != nil {
			return err
		}
		td, err := spiffeid.TrustDomainFromString(string(domain.bytes(1)))
		if err != nil {
			return err
		}
		text, err := domain.inline(2)
		if err != nil {
			return fmt.Errorf("%s: %w", td, err)
		}
		certs, err := pemtext.Certificates(text, maxRoots)
		if err != nil {
			return fmt.Errorf("%s: %w", td, err)
		}
		r.domains.Add(x509bundle.FromX509Authorities(td, certs))
	}
	return nil
}

// bundles are the roots for one whose certificate is of td.
func (r *roots) bundles(td spiffeid.TrustDomain) *x509bundle.Set {
	set := x509bundle.NewSet(r.domains.Bundles()...)
	if r.own != nil {
		set.Add(x509bundle.FromX509Authorities(td, r.own.X509Authorities()))
	}
	return set
}
