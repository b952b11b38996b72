package programmed

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"net"
	"strconv"
	"strings"
)

// envoyAddress is an address as Envoy writes it.
type envoyAddress struct {
	Socket struct {
		Address string `json:"address"`
		Port    int    `json:"port_value"`
	} `json:"socket_address"`
	Internal struct {
		Endpoint string `json:"endpoint_id"`
	} `json:"envoy_internal_address"`
}

func (a *envoyAddress) address() (Address, bool) {
	if a.Internal.Endpoint != "" {
		return split(a.Internal.Endpoint)
	}
	return Address{Host: a.Socket.Address, Port: a.Socket.Port}, a.Socket.Address != ""
}

// split is an address from host:port.
func split(text string) (Address, bool) {
	host, port, err := net.SplitHostPort(text)
	n, perr := strconv.ParseUint(port, 10, 16)
	return Address{Host: host, Port: int(n)}, err == nil && perr == nil && host != ""
}

// envoyEndpoints are those of a cluster as Envoy writes them. Where a connection is carried in a tunnel, as Istio's gateways do it, what is addressed in the
// tunnel stands in the metadata.
type envoyEndpoints []struct {
	Endpoints []struct {
		Endpoint struct {
			Address envoyAddress `json:"address"`
		} `json:"endpoint"`
		Metadata struct {
			Filter struct {
				Tunnel struct {
					Local    string `json:"local"`
					Waypoint string `json:"waypoint"`
				} `json:"envoy.filters.listener.original_dst"`
			} `json:"filter_metadata"`
		} `json:"metadata"`
	} `json:"lb_endpoints"`
}

func (l envoyEndpoints) addresses() (list []Address) {
	for _, locality := range l {
		for i := range locality.Endpoints {
			e := &locality.Endpoints[i]
			a, ok := e.Endpoint.Address.address()
			if in, is := split(e.Metadata.Filter.Tunnel.Local); is {
				in.Via = cmp.Or(e.Metadata.Filter.Tunnel.Waypoint, net.JoinHostPort(a.Host, strconv.Itoa(a.Port)))
				if _, is := split(in.Via); !is {
					in.Via = ""
				}
				a, ok = in, true
			}
			if ok {
				list = append(list, a)
			}
		}
	}
	return list
}

// envoyConfigs reads the parts of a config_dump. Those about listeners, routes and secrets are passed over.
func (r *reader) envoyConfigs() error {
	return r.array(func() error {
		return r.object(func(field string) error {
			switch field {
			case "dynamic_active_clusters":
				return r.array(r.envoyCluster)
			case "dynamic_endpoint_configs":
				return r.array(r.envoyEndpoint)
			}
			return r.skip()
		})
	})
}

func (r *reader) envoyCluster() error {
	var x struct {
		Cluster struct {
			Name string `json:"name"`
			Type string `json:"type"`
			EDS  struct {
				Service string `json:"service_name"`
			} `json:"eds_cluster_config"`
			Assignment struct {
				Endpoints envoyEndpoints `json:"endpoints"`
			} `json:"load_assignment"`
		} `json:"cluster"`
	}
	if err := r.value(&x); err != nil {
		return err
	}
	c := &x.Cluster
	if c.Name == "" {
		return nil
	}
	if c.Type == "EDS" {
		r.follow(c.Name, cmp.Or(c.EDS.Service, c.Name))
		return r.add(Upstream{Name: c.Name})
	}
	return r.add(Upstream{Name: c.Name, To: c.Assignment.Endpoints.addresses()})
}

func (r *reader) envoyEndpoint() error {
	var x struct {
		Config struct {
			Name      string         `json:"cluster_name"`
			Endpoints envoyEndpoints `json:"endpoints"`
		} `json:"endpoint_config"`
	}
	if err := r.value(&x); err != nil || x.Config.Name == "" {
		return err
	}
	return r.tell(x.Config.Name, x.Config.Endpoints.addresses())
}

// envoyStatuses reads clusters?format=json.
func (r *reader) envoyStatuses() error {
	return r.array(func() error {
		var x struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address envoyAddress `json:"address"`
			} `json:"host_statuses"`
		}
		if err := r.value(&x); err != nil || x.Name == "" {
			return err
		}
		u := Upstream{Name: x.Name}
		for i := range x.Hosts {
			if a, ok := x.Hosts[i].Address.address(); ok {
				u.To = append(u.To, a)
			}
		}
		return r.add(u)
	})
}

// hostCounter ends the lines of clusters that are there once for each host: NAME::ADDRESS::cx_active::0.
const hostCounter = "::cx_active::"

// clusterMark ends those that are there once for each cluster.
const clusterMark = "::added_via_api::"

// lines reads clusters as text.
func (r *reader) lines(b *bufio.Reader) error {
	at := map[string]int{}
	lines := bufio.NewScanner(b)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		r.next()
		line := lines.Bytes()
		name, host, is := line, []byte(nil), false
		if end := bytes.LastIndex(line, []byte(hostCounter)); end > 0 {
			name, host, is = cutHost(line[:end])
		} else if end := bytes.LastIndex(line, []byte(clusterMark)); end > 0 {
			name, is = line[:end], true
		}
		if !is {
			continue
		}
		r.kind = EnvoyClusters
		i, there := at[string(name)]
		if !there {
			i = len(r.upstreams)
			at[string(name)] = i
			if err := r.add(Upstream{Name: string(name)}); err != nil {
				return err
			}
		}
		if a, ok := split(string(host)); ok {
			r.upstreams[i].To = append(r.upstreams[i].To, a)
			if err := r.count([]Address{a}); err != nil {
				return err
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return ErrUnknown // a line of something else
	}
	return lines.Err()
}

// cutHost cuts NAME::ADDRESS, where the address may have colons itself.
func cutHost(text []byte) (name, host []byte, ok bool) {
	s := string(text)
	end := strings.LastIndex(s, "::")
	if open := strings.LastIndex(s, "::["); open > 0 && strings.Contains(s[open:], "]:") {
		end = open
	}
	if end <= 0 {
		return nil, nil, false
	}
	host = text[end+2:]
	if at := bytes.LastIndexByte(host, '/'); at >= 0 { // envoy://LISTENER/ADDRESS
		host = host[at+1:]
	}
	return text[:end], host, true
}
