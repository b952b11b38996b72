package wds

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// refusals are the credentials of a connection on which a write that fails tells why. By TLS 1.3 a server looks at our certificate when the handshake has
// ended for us (RFC 8446, section 4.4.4): what we write then may find the connection closed before the alert with the reason was read.
type refusals struct {
	credentials.TransportCredentials
}

func (r refusals) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := r.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &refusable{c}, info, nil
}

func (r refusals) Clone() credentials.TransportCredentials {
	return refusals{r.TransportCredentials.Clone()}
}

// refusable is a connection of refusals.
type refusable struct{ net.Conn }

// alertWait is how long an alert is waited for, which has been sent before the connection was closed.
const alertWait = 200 * time.Millisecond

func (c *refusable) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	// Nobody needs what comes now: the connection is lost. What was read before may have had the alert, and has it still.
	_ = c.SetReadDeadline(time.Now().Add(alertWait))
	buf := make([]byte, 4096)
	for {
		if _, why := c.Read(buf); why != nil {
			if told, ok := errors.AsType[*net.OpError](why); ok && told.Op == "remote error" { // a TLS alert
				return n, why
			}
			return n, err
		}
	}
}
