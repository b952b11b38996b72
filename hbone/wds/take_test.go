package wds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// idle is a Client that speaks to nobody.
func idle(t testing.TB) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return newClient(ctx, cancel, Config{Policies: true, Node: Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "p", Namespace: "edge"}})
}

// response is a delta response with resources by name.
func response(typ string, removed []string, resources map[string]msg) *discovery.DeltaDiscoveryResponse {
	res := &discovery.DeltaDiscoveryResponse{TypeUrl: typ, Nonce: "n", RemovedResources: removed}
	for name, value := range resources {
		res.Resources = append(res.Resources, &discovery.Resource{Name: name, Version: "1", Resource: &anypb.Any{TypeUrl: typ, Value: value}})
	}
	return res
}

var (
	aPod     = msg{}.bytes(1, msg{}.str(20, "uid").str(2, "shop").bytes(3, ipBytes("10.0.0.1")).varint(5, 1).bytes(22, msg{}.str(1, "shop/cart").bytes(2, nil)))
	aService = msg{}.bytes(2, msg{}.str(2, "shop").str(3, "cart").bytes(4, networkAddress("", "10.96.0.1")).bytes(5, msg{}.varint(1, 80).varint(2, 8080)))
)

func TestTakeRefusesAnotherName(t *testing.T) {
	c := idle(t)
	ack := c.take(response(addressType, nil, map[string]msg{"other": aPod, "shop/cart": aService}))
	if ack.GetErrorDetail().GetMessage() != `other: it is called "uid" inside` || ack.GetResponseNonce() != "n" {
		t.Errorf("answered with %v", ack)
	}
	if c.now.Load().table.Has("uid") || c.now.Load().table.Has("/10.0.0.1") || !c.now.Load().table.Has("shop/cart") {
		t.Error("what could not be removed again is held, or what was right beside it is not")
	}
}

// Whatever istiod sends, nothing breaks, what is held can be taken away again, and nothing stays behind.
func FuzzTake(f *testing.F) {
	seed := func(list ...*discovery.DeltaDiscoveryResponse) {
		var in []byte
		for _, res := range list {
			b, err := proto.Marshal(res)
			if err != nil {
				f.Fatal(err)
			}
			in = append(append(in, byte(len(b)>>8), byte(len(b))), b...)
		}
		f.Add(in)
	}
	both := response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService})
	seed(both)
	seed(both, response(addressType, []string{"uid", "/10.0.0.1", "none"}, nil), both)
	seed(response(authorizationType, nil, map[string]msg{"shop/p": policy(msg{}.varint(3, 1).bytes(5, nil)), "shop/bad": {0xff}}),
		response(authorizationType, []string{"shop/p", "shop/bad"}, nil))
	seed(response("other", nil, map[string]msg{"x": {1}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := idle(t)
		// Two bytes of length before each response.
		for len(in) >= 2 {
			n := min(int(in[0])<<8|int(in[1]), len(in)-2)
			res := &discovery.DeltaDiscoveryResponse{}
			err := proto.Unmarshal(in[2:2+n], res)
			in = in[2+n:]
			if err != nil {
				continue
			}
			if ack := c.take(res); ack.GetResponseNonce() != res.GetNonce() || ack.GetTypeUrl() != res.GetTypeUrl() {
				t.Fatalf("%v is answered with %v", res, ack)
			}
		}
		checkHeld(t, c)
		gone := &discovery.DeltaDiscoveryResponse{TypeUrl: addressType}
		for name := range c.held.versions {
			gone.RemovedResources = append(gone.RemovedResources, name)
		}
		names := allNames(c)
		c.take(gone)
		for _, name := range names {
			if c.now.Load().table.Has(name) {
				t.Fatalf("%q is still there after all was removed", name)
			}
		}
		a := c.Authorizer(netip.MustParseAddr("10.244.9.9"))
		if d := a.Decide(done(), authz.Conn{}); d.Allow {
			t.Fatalf("a workload that is not known is open: %+v", d)
		}
	})
}

// allNames is all names of what is held.
func allNames(c *Client) (names []string) {
	for name := range c.held.versions {
		names = append(append(names, name), c.now.Load().table.Names(name)...)
	}
	return names
}

func checkHeld(t *testing.T, c *Client) {
	t.Helper()
	for name := range c.held.versions {
		if !c.now.Load().table.Has(name) || c.bad[name] != nil {
			t.Fatalf("%q has a version, and is not held or bad: %v", name, c.bad[name])
		}
	}
	for name := range c.held.policies {
		if _, ok := c.held.polVers[name]; !ok || c.held.badPols[name].err != nil {
			t.Fatalf("policy %q is held without a version, or held and bad", name)
		}
	}
	for name := range c.held.badPols {
		if c.held.policies[name] != nil {
			t.Fatalf("policy %q is held and bad", name)
		}
	}
	for _, dial := range []string{"10.96.0.1:80", "10.0.0.1:80", "cart.shop.svc.cluster.local:80"} {
		r, err := c.now.Load().table.Resolve(c.cfg.source(), dial, func(string) bool { return true })
		if e, ok := errors.AsType[*route.Error](err); err != nil && (!ok || e.Why == "") {
			t.Fatalf("%s: %v", dial, err)
		}
		for _, h := range r.Hops {
			if len(h.Peers) == 0 {
				t.Fatalf("an open hop: %+v", h)
			}
		}
	}
}

// done is a context that has ended.
func done() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("the test does not wait"))
	return ctx
}

// A program that also links Istio's own packages would panic at start if we registered these names too.
func TestNoIstioNamesAreRegistered(t *testing.T) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if p := f.Package(); p == "istio.workload" || p == "istio.security" {
			t.Errorf("%s registers package %s", f.Path(), p)
		}
		return true
	})
	for _, name := range []protoreflect.FullName{"istio.workload.Address", "istio.security.Authorization"} {
		if _, err := protoregistry.GlobalTypes.FindMessageByName(name); !errors.Is(err, protoregistry.NotFound) {
			t.Errorf("%s is registered: %v", name, err)
		}
	}
}
