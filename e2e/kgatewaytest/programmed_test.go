package kgatewaytest

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// upstream is where a cluster of Envoy's leads.
type upstream struct {
	Static bool     // the addresses are a part of the cluster; else they are those of EDS, which follow the pods
	To     []string // ip:port
}

func (u upstream) String() string {
	if u.Static {
		return fmt.Sprintf("STATIC %v", u.To)
	}
	return fmt.Sprintf("EDS %v", u.To)
}

// fromDump finds a cluster in an Envoy's config_dump?include_eds.
func fromDump(text, cluster string) (upstream, error) {
	var dump struct {
		Configs []struct {
			Clusters []struct {
				Cluster struct {
					Name string `json:"name"`
					Type string `json:"type"`
					EDS  struct {
						ServiceName string `json:"service_name"`
					} `json:"eds_cluster_config"`
					Assignment any `json:"load_assignment"`
				} `json:"cluster"`
			} `json:"dynamic_active_clusters"`
			Endpoints []struct {
				Config struct {
					ClusterName string `json:"cluster_name"`
					Endpoints   any    `json:"endpoints"`
				} `json:"endpoint_config"`
			} `json:"dynamic_endpoint_configs"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		return upstream{}, fmt.Errorf("read Envoy's dump: %w", err)
	}
	for _, c := range dump.Configs {
		for _, d := range c.Clusters {
			switch c := d.Cluster; {
			case c.Name != cluster:
			case c.Type != "EDS":
				return upstream{Static: true, To: addresses(c.Assignment)}, nil
			default:
				names := []string{c.Name, c.EDS.ServiceName}
				for _, c := range dump.Configs {
					for _, e := range c.Endpoints {
						if slices.Contains(names, e.Config.ClusterName) {
							return upstream{To: addresses(e.Config.Endpoints)}, nil
						}
					}
				}
				return upstream{}, nil
			}
		}
	}
	return upstream{}, fmt.Errorf("Envoy has no cluster %s", cluster)
}

// static is the number that Envoy's API gives to clusters with addresses of their own.
const static = 0

// fromSnapshots finds a cluster in what kgateway's /snapshots/xds has for the proxies of a Gateway, by the proxies' keys.
func fromSnapshots(text, namespace, gateway, cluster string) (map[string]upstream, error) {
	var all struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("read kgateway's snapshots: %w", err)
	}
	found := map[string]upstream{}
	for key, raw := range all.Data {
		if !strings.Contains(key+"~", "~"+namespace+"~"+gateway+"~") {
			continue
		}
		var snapshot struct {
			Resources []struct {
				Items map[string]struct {
					Resource json.RawMessage
				}
			}
		}
		if err := json.Unmarshal(raw, &snapshot); err != nil {
			return nil, fmt.Errorf("read kgateway's snapshot %s: %w", key, err)
		}
		u, there := upstream{}, false
		var endpoints []string
		for _, r := range snapshot.Resources {
			for name, item := range r.Items {
				var x struct {
					Name string `json:"name"`
					Kind *struct {
						Type *int
					} `json:"ClusterDiscoveryType"`
					Assignment  any    `json:"load_assignment"`
					ClusterName string `json:"cluster_name"`
					Endpoints   any    `json:"endpoints"`
				}
				if json.Unmarshal(item.Resource, &x) != nil {
					continue // of another kind
				}
				switch {
				case x.Kind != nil && x.Kind.Type != nil && x.Name == cluster:
					there, u.Static = true, *x.Kind.Type == static
					if u.Static {
						u.To = addresses(x.Assignment)
					}
				case name == cluster && x.ClusterName != "":
					endpoints = addresses(x.Endpoints)
				}
			}
		}
		if !u.Static {
			u.To = endpoints
		}
		if there {
			found[key] = u
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("kgateway has no cluster %s for a proxy of Gateway %s/%s", cluster, namespace, gateway)
	}
	return found, nil
}

// addresses are the socket addresses somewhere in a tree, as Envoy writes them and as Go does.
func addresses(tree any) []string {
	var list []string
	switch tree := tree.(type) {
	case []any:
		for _, t := range tree {
			list = append(list, addresses(t)...)
		}
	case map[string]any:
		port, ok := tree["port_value"].(float64)
		if in, is := tree["PortSpecifier"].(map[string]any); is {
			port, ok = in["PortValue"].(float64)
		}
		if ip, is := tree["address"].(string); is && ok {
			return []string{net.JoinHostPort(ip, strconv.Itoa(int(port)))}
		}
		for _, t := range tree {
			list = append(list, addresses(t)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestDumpTellsWhereAClusterLeads(t *testing.T) {
	const dump = `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"}, {
 "static_clusters": [{"cluster": {"name": "xds_cluster"}}],
 "dynamic_active_clusters": [
  {"cluster": {"name": "pods", "type": "EDS", "eds_cluster_config": {"service_name": "pods-7"}}},
  {"cluster": {"name": "plain", "type": "EDS"}},
  {"cluster": {"name": "nobody", "type": "EDS"}},
  {"cluster": {"name": "vip", "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.96.0.7", "port_value": 80}}}}]}]}}},
  {"cluster": {"name": "empty", "load_assignment": {"cluster_name": "empty"}}}]}, {
 "dynamic_endpoint_configs": [
  {"endpoint_config": {"cluster_name": "pods-7", "endpoints": [{"lb_endpoints": [
   {"endpoint": {"address": {"socket_address": {"address": "10.244.1.9", "port_value": 8080}}}}, {"endpoint": {"address": {"socket_address": {"address": "10.244.1.8", "port_value": 8080}}}}]}]}},
  {"endpoint_config": {"cluster_name": "plain", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.244.1.8", "port_value": 81}}}}]}]}}]}]}`
	for cluster, want := range map[string]upstream{
		"pods":   {To: []string{"10.244.1.8:8080", "10.244.1.9:8080"}},
		"plain":  {To: []string{"10.244.1.8:81"}},
		"nobody": {},
		"vip":    {Static: true, To: []string{"10.96.0.7:80"}},
		"empty":  {Static: true},
	} {
		got, err := fromDump(dump, cluster)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", cluster, err, d)
		}
	}
	if _, err := fromDump(dump, "xds_cluster"); err == nil {
		t.Error("a cluster of the bootstrap is taken for one that was sent")
	}
	if _, err := fromDump("no healthy upstream", "pods"); err == nil {
		t.Error("what is no dump is read")
	}
}

func TestSnapshotsTellWhereAClusterLeads(t *testing.T) {
	const snapshots = `{"data": {
"kgateway-kube-gateway-api~edge~http~77~edge": {"Resources": [
 {"Version": "1", "Items": {"vip": {"Resource": {"cluster_name": "vip", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.244.1.8", "PortSpecifier": {"PortValue": 8080}}}}}}}]}]}}}},
 {"Version": "2", "Items": {"vip": {"Resource": {"name": "vip", "ClusterDiscoveryType": {"Type": 0}, "load_assignment": {"cluster_name": "vip", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.96.0.7", "PortSpecifier": {"PortValue": 80}}}}}}}]}]}}}}},
 {"Version": "3", "Items": {"vip": {"Resource": {"name": "vip", "virtual_hosts": []}}}}]},
"kgateway-kube-gateway-api~edge~http~78~edge": {"Resources": [
 {"Version": "1", "Items": {"vip": {"Resource": {"cluster_name": "vip", "endpoints": [{"lb_endpoints": [{"HostIdentifier": {"Endpoint": {"address": {"Address": {"SocketAddress": {"address": "10.244.1.8", "PortSpecifier": {"PortValue": 8080}}}}}}}]}]}}}},
 {"Version": "2", "Items": {"vip": {"Resource": {"name": "vip", "ClusterDiscoveryType": {"Type": 3}}}}}]},
"kgateway-kube-gateway-api~edge~http2~79~edge": {"Resources": []}}}`
	got, err := fromSnapshots(snapshots, "edge", "http", "vip")
	want := map[string]upstream{
		"kgateway-kube-gateway-api~edge~http~77~edge": {Static: true, To: []string{"10.96.0.7:80"}},
		"kgateway-kube-gateway-api~edge~http~78~edge": {To: []string{"10.244.1.8:8080"}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, gateway := range []string{"http2", "htt"} {
		if _, err := fromSnapshots(snapshots, "edge", gateway, "vip"); err == nil {
			t.Errorf("Gateway %s has a cluster that it has not", gateway)
		}
	}
}
