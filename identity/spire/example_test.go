package spire_test

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/spire"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A process that a SPIRE agent knows has an identity without any file or token.
func ExampleNew() {
	id, err := spire.New(context.Background(), spire.Config{
		Socket: "unix:///run/spire/sockets/agent.sock",                                  // empty: SPIFFE_ENDPOINT_SOCKET
		ID:     spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"), // empty: the agent's first
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer id.Close()
	dialer := &hbone.Dialer{Identity: id}
	defer dialer.Close()
}
