//go:build tools

package e2e

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/nftables"
	_ "github.com/isthmus-mesh/isthmus"
	_ "github.com/vishvananda/netlink"
	_ "golang.org/x/net/dns/dnsmessage"
	_ "google.golang.org/grpc"
	_ "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "istio.io/client-go/pkg/apis/security/v1"
	_ "k8s.io/client-go/kubernetes"
	_ "sigs.k8s.io/controller-runtime"
	_ "sigs.k8s.io/gateway-api/apis/v1"
	_ "sigs.k8s.io/yaml"
	_ "golang.org/x/sys/unix"
)
