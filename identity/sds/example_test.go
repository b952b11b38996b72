package sds_test

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/sds"
)

// Istio's agent beside us has an identity for us, and so has a SPIRE agent for proxies that speak Envoy's secret discovery.
func ExampleNew() {
	id, err := sds.New(context.Background(), sds.Config{}) // Istio's agent at its own place
	if err != nil {
		fmt.Println(err)
		return
	}
	defer id.Close()
	dialer := &hbone.Dialer{Identity: id}
	defer dialer.Close()
}
