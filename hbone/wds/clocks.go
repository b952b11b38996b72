package wds

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// clocks are the credentials of a connection whose handshake, where it fails by a certificate that is not of now, says by how much.
type clocks struct {
	credentials.TransportCredentials
}

func (k clocks) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := k.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		if ahead := time.Until(invalid.Cert.NotBefore); ahead > 0 {
			err = fmt.Errorf("its certificate begins only in %v: the clocks of this machine and of istiod disagree: %w", ahead.Round(time.Second), err)
		} else {
			err = fmt.Errorf("its certificate ended %v ago, or the clock of this machine is ahead by that: %w", time.Since(invalid.Cert.NotAfter).Round(time.Second), err)
		}
	}
	return c, info, err
}

func (k clocks) Clone() credentials.TransportCredentials {
	return clocks{k.TransportCredentials.Clone()}
}
