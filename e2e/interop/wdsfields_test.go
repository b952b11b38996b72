package interop

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// unread is what Istio's messages have that a dialer or an authorizer makes nothing of, and why.
var unread = map[string]string{
	"Workload.hostname":                                     "who is dialled by a name is a Service",
	"Workload.canonical_name":                               "for telemetry",
	"Workload.canonical_revision":                           "for telemetry",
	"Workload.workload_type":                                "for telemetry",
	"Workload.workload_name":                                "for telemetry",
	"Workload.native_tunnel":                                "tunnel_protocol says how it is reached",
	"Workload.application_tunnel.protocol":                  "what is written in front of the bytes is the matter of the receiving ztunnel",
	"Workload.services.ports.app_protocol":                  "bytes are bytes",
	"Service.ports.app_protocol":                            "bytes are bytes",
	"Workload.extensions":                                   "of vendors",
	"Service.extensions":                                    "of vendors",
	"Authorization.extensions":                              "of vendors",
	"Authorization.groups.rules.matches.extensions":         "of vendors, and no conditions",
	"Workload.waypoint.address.length":                      "a waypoint has an address and no range",
	"Workload.network_gateway.address.length":               "a gateway has an address and no range",
	"Service.waypoint.address.length":                       "a waypoint has an address and no range",
	"Service.weighted_waypoints.destination.address.length": "a waypoint has an address and no range",
}

// needed is what messages cannot be read without, or are not written back without.
func needed(m protoreflect.Message) {
	switch m := m.Interface().(type) {
	case *workloadapi.Workload:
		m.Namespace = "shop"
	case *workloadapi.Service:
		m.Namespace = "shop"
	case *security.Authorization:
		m.Namespace = "shop"
	case *workloadapi.NamespacedHostname:
		m.Namespace, m.Hostname = "shop", "waypoint.shop.svc.cluster.local"
	case *workloadapi.NetworkAddress:
		m.Address = []byte{10, 7, 0, 0}
	case *security.Address:
		m.Address, m.Length = []byte{10, 7, 0, 0}, 16
	case *workloadapi.GatewayAddress:
		name := &workloadapi.NamespacedHostname{}
		needed(name.ProtoReflect())
		m.Destination = &workloadapi.GatewayAddress_Hostname{Hostname: name}
	case *workloadapi.WeightedWaypoint:
		m.Destination = &workloadapi.GatewayAddress{}
		needed(m.Destination.ProtoReflect())
	case *workloadapi.Port:
		m.ServicePort = 80
	case *workloadapi.ApplicationTunnel:
		m.Port = 15088
	case *workloadapi.LoadBalancing: // without preferences a mode that prefers is none
		m.Mode, m.RoutingPreference = workloadapi.LoadBalancing_FAILOVER, []workloadapi.LoadBalancing_Scope{workloadapi.LoadBalancing_REGION}
	}
}

// sample is a message with one of its fields set, in whatever depth, and what of it must come back.
type sample struct {
	path       string
	sent, want protoreflect.Message
}

// samplesOf is one for each value of each field of a message's type.
func samplesOf(fresh func() protoreflect.Message, path string) (list []sample) {
	fields := fresh().Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + "." + string(fd.Name())
		for _, v := range valuesOf(fresh(), fd, at) {
			s := sample{path: v.path, sent: fresh(), want: fresh()}
			needed(s.sent)
			needed(s.want)
			s.sent.Set(fd, v.sent)
			if unread[at] == "" {
				s.want.Set(fd, v.want)
			}
			list = append(list, s)
		}
	}
	return list
}

// value is one of a field, and what of it must come back.
type value struct {
	path       string
	sent, want protoreflect.Value
}

func valuesOf(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) (list []value) {
	of, element := fd, func() protoreflect.Value { return m.NewField(fd) }
	wrap := func(v protoreflect.Value) protoreflect.Value { return v }
	switch {
	case fd.IsMap():
		of, element = fd.MapValue(), func() protoreflect.Value { return m.NewField(fd).Map().NewValue() }
		wrap = func(v protoreflect.Value) protoreflect.Value {
			entry := m.NewField(fd)
			entry.Map().Set(protoreflect.ValueOfString("shop/a.shop.svc.cluster.local").MapKey(), v)
			return entry
		}
	case fd.IsList():
		element = func() protoreflect.Value { return m.NewField(fd).List().NewElement() }
		wrap = func(v protoreflect.Value) protoreflect.Value {
			l := m.NewField(fd)
			l.List().Append(v)
			return l
		}
	}
	add := func(path string, sent, want protoreflect.Value) {
		list = append(list, value{path, wrap(sent), wrap(want)})
	}
	one := func(v any) { add(path, protoreflect.ValueOf(v), protoreflect.ValueOf(v)) }
	switch of.Kind() {
	case protoreflect.MessageKind:
		if of.Message().Fields().Len() == 0 {
			add(path, element(), element())
			break
		}
		for _, s := range samplesOf(func() protoreflect.Message { return element().Message() }, path) {
			add(s.path, protoreflect.ValueOf(s.sent), protoreflect.ValueOf(s.want))
		}
	case protoreflect.EnumKind:
		for i := range of.Enum().Values().Len() {
			if v := of.Enum().Values().Get(i); v.Number() != 0 {
				add(path+"="+string(v.Name()), protoreflect.ValueOf(v.Number()), protoreflect.ValueOf(v.Number()))
			}
		}
	case protoreflect.BytesKind:
		one(netip.MustParseAddr("fd00::").AsSlice()) // whatever the length of a range, it is the first of it
	case protoreflect.StringKind:
		one("some-" + string(fd.Name()))
	case protoreflect.BoolKind:
		one(true)
	case protoreflect.Uint32Kind:
		switch fd.Name() {
		case "length":
			one(uint32(24))
		case "port":
			one(uint32(15088)) // which one says nothing to a dialer
		default:
			one(uint32(7))
		}
	default:
		panic(fmt.Sprintf("%s is a %v, and there is no value for it", path, of.Kind()))
	}
	return list
}

// Each field of the messages that Istio's package writes is read by ours, and Istio's reads what ours writes: istiod sends it, a client takes it and keeps it in its
// file. What is not read is listed with the reason, so that a field that Istio adds is decided about.
func TestEveryFieldOfIstiosWorkloadAPI(t *testing.T) {
	istiod := wdstest.New(t)
	want := map[string]sample{}
	reached := map[string]bool{}
	send := func(kind string, fresh func() protoreflect.Message, give func(s sample, name string) (key string)) int {
		list := samplesOf(fresh, kind)
		for i, s := range list {
			want[give(s, fmt.Sprintf("%s-%d", strings.ToLower(kind), i))] = s
			for path := range unread {
				reached[path] = reached[path] || s.path == path || strings.HasPrefix(s.path, path+".") || strings.HasPrefix(s.path, path+"=")
			}
		}
		return len(list)
	}
	workloads := send("Workload", func() protoreflect.Message { return new(workloadapi.Workload).ProtoReflect() }, func(s sample, name string) string {
		m := s.sent.Interface().(*workloadapi.Workload)
		m.Uid, s.want.Interface().(*workloadapi.Workload).Uid = name, name
		istiod.SetRaw(wdstest.AddressType, name, marshal(t, &workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: m}}))
		return name
	})
	services := send("Service", func() protoreflect.Message { return new(workloadapi.Service).ProtoReflect() }, func(s sample, name string) string {
		m := s.sent.Interface().(*workloadapi.Service)
		m.Hostname, s.want.Interface().(*workloadapi.Service).Hostname = name, name
		istiod.SetRaw(wdstest.AddressType, m.Namespace+"/"+name, marshal(t, &workloadapi.Address{Type: &workloadapi.Address_Service{Service: m}}))
		return name
	})
	policies := send("Authorization", func() protoreflect.Message { return new(security.Authorization).ProtoReflect() }, func(s sample, name string) string {
		m := s.sent.Interface().(*security.Authorization)
		m.Name, s.want.Interface().(*security.Authorization).Name = name, name
		istiod.SetRaw(wdstest.PolicyType, m.Namespace+"/"+name, marshal(t, m))
		return name
	})
	for path := range unread {
		if !reached[path] {
			t.Errorf("there is no %s: drop it from what is not read", path)
		}
	}

	got := map[string]proto.Message{}
	for _, b := range kept(t, istiod, workloads, services, policies) {
		a, p := &workloadapi.Address{}, &security.Authorization{}
		switch {
		case b.policy:
			unmarshal(t, b.bytes, p)
			got[p.Name] = p
		default:
			unmarshal(t, b.bytes, a)
			if w := a.GetWorkload(); w != nil {
				got[w.Uid] = w
			} else {
				got[a.GetService().GetHostname()] = a.GetService()
			}
		}
	}
	t.Logf("%d fields and values of workloads, %d of Services, %d of policies", workloads, services, policies)
	for key, s := range want {
		if m := got[key]; m == nil || !proto.Equal(m, s.want.Interface()) {
			t.Errorf("%s: %v\nis read as  %v\nand should %v", s.path, s.sent.Interface(), m, s.want.Interface())
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d came back of %d", len(got), len(want))
	}
}

// resource is one of a client's file.
type resource struct {
	policy bool
	bytes  []byte
}

// kept is what a client writes to its file when it has taken all that istiod has.
func kept(t *testing.T, istiod *wdstest.Istiod, workloads, services, policies int) (list []resource) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snapshot")
	c, err := wds.New(wds.Config{
		Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Policies: true, Wildcard: true, SnapshotFile: file,
		Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge", ServiceAccount: "gateway"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.After(30 * time.Second); ; {
		changed, st := c.Changed(), c.Stats()
		if st.Workloads == workloads && st.Services == services && st.Policies == policies {
			break
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // policies are counted without
		case <-end:
			t.Fatalf("of %d workloads, %d Services and %d policies it has %+v", workloads, services, policies, st)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.IndexByte(b, '\n') + 1 + 4 + 32 // a line, the format and a hash
	for b = b[at:]; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		m := protowire.ConsumeFieldValue(num, typ, b[max(0, n):])
		if n < 0 || m < 0 {
			t.Fatalf("the file cannot be read at its %d last bytes", len(b))
		}
		if num == 4 || num == 5 {
			v, _ := protowire.ConsumeBytes(b[n:])
			list = append(list, resource{num == 5, slices.Clone(v)})
		}
		b = b[n+m:]
	}
	return list
}

// unmarshal reads b. What Istio's package does not know of it stays in m, which then equals nothing that it has written.
func unmarshal(t *testing.T, b []byte, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
}
