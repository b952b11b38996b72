package programmed_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/programmed"
)

// secret stands in texts where dumps hold keys: nothing of it may come out.
const secret = "MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEAq7BFUpkGp3"

const dump = `{"configs": [
{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"admin": {"address": {}}, "static_resources": {"clusters": [{"name": "xds_cluster"}]}}},
{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
 "static_clusters": [{"cluster": {"name": "xds_cluster"}}],
 "dynamic_active_clusters": [
  {"version_info": "1", "cluster": {"name": "pods", "type": "EDS", "eds_cluster_config": {"service_name": "pods-7"},
   "transport_socket": {"typed_config": {"common_tls_context": {"tls_certificates": [{"private_key": {"inline_string": "` + secret + `"}}]}}}}},
  {"cluster": {"name": "nobody", "type": "EDS"}},
  {"cluster": {"name": "tunnel", "type": "EDS"}},
  {"cluster": {"name": "vip", "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.96.0.7", "port_value": 80}}}}]}]}}},
  {"cluster": {"name": "dns", "type": "STRICT_DNS", "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "orders.shop.svc.cluster.local", "port_value": 80}}}}]}]}}},
  {"cluster": {"name": "empty", "type": "STATIC", "load_assignment": {"cluster_name": "empty"}}}],
 "dynamic_warming_clusters": [{"cluster": {"name": "warming", "type": "STATIC"}}]},
{"dynamic_listeners": [{"name": "l", "active_state": {"listener": {"deep": [[[{"a": [1, 2.5, true, null, "` + secret + `"]}]]]}}}]},
{"dynamic_active_secrets": [{"secret": {"tls_certificate": {"private_key": {"inline_bytes": "` + secret + `"}}}}]},
{"dynamic_endpoint_configs": [
  {"endpoint_config": {"cluster_name": "pods-7", "endpoints": [{"locality": {}, "lb_endpoints": [
   {"endpoint": {"address": {"socket_address": {"address": "10.244.1.9", "port_value": 8080}}}}, {"endpoint": {"address": {"pipe": {"path": "/run/x"}}}}]},
   {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "fd00::8", "port_value": 8080}}}}]}]}},
  {"endpoint_config": {"cluster_name": "tunnel", "endpoints": [{"lb_endpoints": [
   {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": "connect_originate", "endpoint_id": "10.244.1.5:15008"}}},
    "metadata": {"filter_metadata": {"envoy.filters.listener.original_dst": {"local": "10.96.0.7:80", "waypoint": "10.244.1.5:15008"}, "istio": {"x": 1}}}},
   {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": "connect_originate", "endpoint_id": "10.244.1.9:8080"}}},
    "metadata": {"filter_metadata": {"envoy.filters.listener.original_dst": {"local": "10.244.1.9:8080"}}}}]}]}}]}]}`

const snapshots = `{"handlers": "x", "data": {
"kgateway-kube-gateway-api~edge~http~77~edge": {"Resources": [
 {"Version": "1", "Items": {"vip": {"Resource": {"cluster_name": "vip", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.244.1.8", "PortSpecifier": {"PortValue": 8080}}}}}}}]}]}}}},
 {"Version": "2", "Items": {"vip": {"Resource": {"name": "vip", "ClusterDiscoveryType": {"Type": 0}, "load_assignment": {"cluster_name": "vip", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.96.0.7", "PortSpecifier": {"PortValue": 80}}}}}}}]}]}}}}},
 {"Version": "3", "Items": {"vip": {"Resource": {"name": "vip", "virtual_hosts": [], "endpoints": "of another kind"}}}},
 {"Version": "4", "Items": {"key": {"Resource": {"name": "key", "Type": {"TlsCertificate": {"private_key": {"Specifier": {"InlineBytes": "` + secret + `"}}}}}}}},
 {"Version": "", "Items": null}]},
"kgateway-kube-gateway-api~edge~http~78~edge": {"Resources": [
 {"Items": {"vip-7": {"Resource": {"cluster_name": "vip-7", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.244.1.8", "PortSpecifier": {"PortValue": 8080}}}}}}}]}]}}}},
 {"Items": {"vip": {"Resource": {"name": "vip", "ClusterDiscoveryType": {"Type": 3}, "eds_cluster_config": {"service_name": "vip-7"}}}}}]},
"kgateway-kube-gateway-api~edge~http2~79~edge": {"Resources": []}}}`

const rawdata = `{"routers": {"a@k": {"rule": "Host(` + "`x`" + `)", "service": "edge-orders-80"}},
"middlewares": {"auth@k": {"basicAuth": {"users": ["u:` + secret + `"]}}},
"services": {
 "edge-orders-80@kubernetesgateway": {"loadBalancer": {"servers": [{"url": "http://10.96.0.7:8000"}, {"url": "https://[fd00::7]"}], "passHostHeader": true}, "status": "enabled", "usedBy": ["a@k"]},
 "edge-orders-wrr@kubernetesgateway": {"weighted": {"services": [{"name": "edge-orders-80"}]}, "status": "enabled"}},
"tcpServices": {"t@k": {"loadBalancer": {"servers": [{"address": "10.244.1.8:5432"}]}}},
"udpServices": null}`

const clusters = `xds_cluster::default_priority::max_connections::1024
xds_cluster::added_via_api::false
xds_cluster::127.0.0.1:9977::cx_active::1
kube_shop_orders_80::observability_name::kube_shop_orders_80
kube_shop_orders_80::added_via_api::true
kube_shop_orders_80::10.96.0.7:80::cx_active::0
kube_shop_orders_80::10.96.0.7:80::hostname::
kube_shop_empty_80::added_via_api::true
six::added_via_api::true
six::[fd00::8]:8080::cx_active::0
outbound|80||orders.shop.svc.cluster.local::added_via_api::true
outbound|80||orders.shop.svc.cluster.local::envoy://connect_originate/10.244.1.5:15008::cx_active::0
`

const clustersJSON = `{"cluster_statuses": [{"name": "xds_cluster", "host_statuses": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9977}}, "stats": []}]}, {"name": "none", "added_via_api": true}]}`

func a(host string, port int) programmed.Address { return programmed.Address{Host: host, Port: port} }

func TestEachTextTellsWhereUpstreamsLead(t *testing.T) {
	through := a("10.96.0.7", 80)
	through.Via = "10.244.1.5:15008"
	straight := a("10.244.1.9", 8080)
	straight.Via = "10.244.1.9:8080"
	for _, c := range []struct {
		name, text string
		want       programmed.Dump
	}{
		{"config_dump", dump, programmed.Dump{Kind: programmed.EnvoyDump, Proxies: []programmed.Proxy{{Upstreams: []programmed.Upstream{
			{Name: "pods", To: []programmed.Address{a("10.244.1.9", 8080), a("fd00::8", 8080)}}, {Name: "nobody"},
			{Name: "tunnel", To: []programmed.Address{through, straight}},
			{Name: "vip", To: []programmed.Address{a("10.96.0.7", 80)}}, {Name: "dns", To: []programmed.Address{a("orders.shop.svc.cluster.local", 80)}}, {Name: "empty"},
		}}}}},
		{"snapshots", snapshots, programmed.Dump{Kind: programmed.Snapshots, Proxies: []programmed.Proxy{
			{Key: "kgateway-kube-gateway-api~edge~http~77~edge", Upstreams: []programmed.Upstream{{Name: "vip", To: []programmed.Address{a("10.96.0.7", 80)}}}},
			{Key: "kgateway-kube-gateway-api~edge~http~78~edge", Upstreams: []programmed.Upstream{{Name: "vip", To: []programmed.Address{a("10.244.1.8", 8080)}}}},
			{Key: "kgateway-kube-gateway-api~edge~http2~79~edge"},
		}}},
		{"rawdata", rawdata, programmed.Dump{Kind: programmed.RawData, Proxies: []programmed.Proxy{{Upstreams: []programmed.Upstream{
			{Name: "edge-orders-80@kubernetesgateway", To: []programmed.Address{a("10.96.0.7", 8000), a("fd00::7", 443)}},
			{Name: "edge-orders-wrr@kubernetesgateway"}, {Name: "t@k", To: []programmed.Address{a("10.244.1.8", 5432)}},
		}}}}},
		{"clusters", clusters, programmed.Dump{Kind: programmed.EnvoyClusters, Proxies: []programmed.Proxy{{Upstreams: []programmed.Upstream{
			{Name: "xds_cluster", To: []programmed.Address{a("127.0.0.1", 9977)}}, {Name: "kube_shop_orders_80", To: []programmed.Address{a("10.96.0.7", 80)}},
			{Name: "kube_shop_empty_80"}, {Name: "six", To: []programmed.Address{a("fd00::8", 8080)}},
			{Name: "outbound|80||orders.shop.svc.cluster.local", To: []programmed.Address{a("10.244.1.5", 15008)}},
		}}}}},
		{"clusters as JSON", clustersJSON, programmed.Dump{Kind: programmed.EnvoyClusters, Proxies: []programmed.Proxy{{Upstreams: []programmed.Upstream{
			{Name: "xds_cluster", To: []programmed.Address{a("127.0.0.1", 9977)}}, {Name: "none"},
		}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := programmed.Read(iotest.OneByteReader(strings.NewReader(c.text)))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if strings.Contains(fmt.Sprintf("%+v", got), secret) {
				t.Error("a key is kept")
			}
		})
	}
}

// TestNothingOfATextIsInErrors: whatever is wrong with it, wherever it ends.
func TestNothingOfATextIsInErrors(t *testing.T) {
	texts := map[string]string{
		"no dump":              "no healthy upstream",
		"a page":               "<html><body>" + secret + "</body></html>",
		"nothing":              "",
		"other JSON":           `{"token": "` + secret + `"}`,
		"two kinds":            `{"configs": [], "data": {}}`,
		"a bad byte":           `{"configs": [{"dynamic_active_clusters": [` + secret + `]}]}`,
		"a text for an object": `{"configs": [{"dynamic_active_clusters": [{"cluster": "` + secret + `"}]}]}`,
		"a number for a text":  `{"configs": [{"dynamic_active_clusters": [{"cluster": {"name": 31415926535}}]}]}`,
		"a list for an object": `{"configs": {"x": "` + secret + `"}}`,
		"more behind":          dump + secret,
		"another behind":       dump + dump,
		"a long line":          strings.Repeat("x", 100<<10),
	}
	for i := 1; i < len(dump); i += 97 {
		texts[fmt.Sprintf("cut at %d", i)] = dump[:i]
	}
	for name, text := range texts {
		d, err := programmed.Read(strings.NewReader(text))
		if err == nil {
			t.Errorf("%s: it is read as %+v", name, d)
			continue
		}
		for _, part := range []string{secret, secret[:8], "31415926535", "healthy"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error quotes it: %v", name, err)
			}
		}
		if cut := strings.HasPrefix(name, "cut at"); cut != errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := programmed.Read(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("what could not be read: %v", err)
	}
}

// endless is a text that never ends: a head, and then the same again and again.
type endless struct {
	head, again string
	at          int
	read        int64
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		var c int
		if e.at < len(e.head) {
			c = copy(p[n:], e.head[e.at:])
		} else {
			c = copy(p[n:], e.again[(e.at-len(e.head))%len(e.again):])
		}
		n, e.at = n+c, e.at+c
	}
	e.read += int64(n)
	return n, nil
}

// TestATextWithoutAnEndTakesBoundedMemory: of one value, of many, of values in values, of what is kept. A text may be long where none of it is kept.
func TestATextWithoutAnEndTakesBoundedMemory(t *testing.T) {
	cluster := `{"cluster": {"name": "c", "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": [` +
		strings.Repeat(`{"endpoint": {"address": {"socket_address": {"address": "10.244.1.9", "port_value": 8080}}}},`, 99) + `{}]}]}}},`
	for _, c := range []struct {
		name, head, again string
		atMost            int64 // MiB of text that are read
	}{
		{"one text", `{"configs": [{"x": "`, "y", 40},
		{"one text of what is kept", `{"configs": [{"dynamic_active_clusters": [{"cluster": {"name": "`, "y", 40},
		{"values in values", `{"configs": [{"x": `, "[", 1},
		{"objects in objects", `{"configs": [{"x": `, `{"a":`, 1},
		{"values in values of what is kept", `{"configs": [{"dynamic_active_clusters": [`, "[", 40},
		{"clusters", `{"configs": [{"dynamic_active_clusters": [`, cluster, 80},
		{"names", `{"cluster_statuses": [`, `{"name": "n"},`, 10},
		{"lines", "", "name::added_via_api::true\nname::10.0.0.1:80::cx_active::0\n", 80},
		{"one line", "", "x", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			in := &endless{head: c.head, again: c.again}
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := programmed.Read(in)
			runtime.ReadMemStats(&after)
			if err == nil || in.read > c.atMost<<20 {
				t.Errorf("%d MiB are read: %v", in.read>>20, err)
			}
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 300<<20 {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
		})
	}
	t.Run("what is passed over may be long", func(t *testing.T) {
		listener := `{"name": "` + strings.Repeat("l", 1000) + `"},`
		long := `{"configs": [{"dynamic_listeners": [` + strings.Repeat(listener, 40<<10) + `{}]}, {"dynamic_active_clusters": [{"cluster": {"name": "c"}}]}]}`
		d, err := programmed.Read(strings.NewReader(long)) // 40 MiB, more than one value may have
		if err != nil || len(d.Proxies) != 1 || len(d.Proxies[0].Upstreams) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{dump, snapshots, rawdata, clusters, clustersJSON, `{"configs": null}`, `{"data": {"a": null}}`, "a::[::]:1::cx_active::", "{", "::cx_active::"} {
		f.Add([]byte(s))
	}
	services := []programmed.Service{
		{Namespace: "shop", Name: "orders", Addresses: []string{"10.96.0.7"}, Pods: []string{"10.244.1.8", "10.244.1.9"}},
		{Namespace: "shop", Name: "other", Pods: []string{"10.244.1.9"}},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := programmed.Read(bytes.NewReader(text))
		if (err == nil) == (d == nil) {
			t.Fatalf("%+v, %v", d, err)
		}
		if err != nil {
			return
		}
		if len(d.Proxies) == 0 && d.Kind != programmed.Snapshots {
			t.Errorf("%s is of no proxy", d.Kind)
		}
		for i := range d.Proxies {
			for _, names := range []programmed.Names{"", "kube_{namespace}_{name}_{port}"} {
				ways, err := d.Proxies[i].Ways(names, services)
				if err != nil || len(ways) != len(services) {
					t.Fatalf("%+v, %v", ways, err)
				}
				for _, w := range ways {
					if w.Sends == "" || w.Sends == programmed.Unclear && w.Why == "" || len(w.To) > programmed.MaxTold || len(w.Upstreams) > programmed.MaxTold {
						t.Errorf("%+v", w)
					}
				}
			}
		}
	})
}
