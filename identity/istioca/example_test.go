package istioca_test

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// A pod gets its identity from istiod with the token and the root that are mounted into it. Here a fake stands for istiod.
func ExampleNew() {
	gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	istiod, err := istiocatest.New(identitytest.NewCA(gateway.TrustDomain()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer istiod.Close()
	istiod.Admit("the pod's token", gateway)

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id, err := istioca.New(ctx, istioca.Config{
		Addresses: []string{istiod.Address()}, // istiod.istio-system.svc:15012
		Roots:     func() ([]byte, error) { return istiod.RootPEM(), nil },
		Token:     func(context.Context) (string, error) { return "the pod's token", nil },
		ID:        gateway,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer id.Close()

	svid, err := id.GetX509SVID()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(svid.ID)
	// Output: spiffe://cluster.local/ns/edge/sa/gateway
}
