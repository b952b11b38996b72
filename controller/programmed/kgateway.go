package programmed

import (
	"cmp"
	"encoding/json"
	"errors"
)

// goEndpoints are those of a cluster as Go writes Envoy's types.
type goEndpoints []struct {
	Endpoints []struct {
		Host struct {
			Endpoint struct {
				Address struct {
					Address struct {
						Socket struct {
							Address string `json:"address"`
							Port    struct {
								Value int `json:"PortValue"`
							} `json:"PortSpecifier"`
						} `json:"SocketAddress"`
					} `json:"Address"`
				} `json:"address"`
			} `json:"Endpoint"`
		} `json:"HostIdentifier"`
	} `json:"lb_endpoints"`
}

func (l goEndpoints) addresses() (list []Address) {
	for _, locality := range l {
		for i := range locality.Endpoints {
			if a := &locality.Endpoints[i].Host.Endpoint.Address.Address.Socket; a.Address != "" {
				list = append(list, Address{Host: a.Address, Port: a.Port.Value})
			}
		}
	}
	return list
}

// goEDS is the number that Envoy's API gives to clusters whose endpoints come apart.
const goEDS = 3

// snapshots reads what kgateway has for each of its proxies: for each kind, resources by their names.
func (r *reader) snapshots() error {
	return r.object(func(key string) error {
		err := r.object(func(field string) error {
			if field != "Resources" {
				return r.skip()
			}
			return r.array(func() error {
				return r.object(func(field string) error {
					if field != "Items" {
						return r.skip()
					}
					return r.object(r.resource)
				})
			})
		})
		if err == nil {
			r.endProxy(key)
		}
		return err
	})
}

// resource reads one of a snapshot: nothing but its fields tells of which kind it is.
func (r *reader) resource(name string) error {
	var x struct {
		Resource struct {
			Name string `json:"name"`
			Kind *struct {
				Type *int `json:"Type"`
			} `json:"ClusterDiscoveryType"`
			EDS struct {
				Service string `json:"service_name"`
			} `json:"eds_cluster_config"`
			Assignment struct {
				Endpoints goEndpoints `json:"endpoints"`
			} `json:"load_assignment"`
			Cluster   string      `json:"cluster_name"`
			Endpoints goEndpoints `json:"endpoints"`
		} `json:"Resource"`
	}
	err := r.value(&x)
	c := &x.Resource
	if _, other := errors.AsType[*json.UnmarshalTypeError](err); other && (c.Kind == nil || c.Kind.Type == nil) {
		return nil // a resource of another kind
	}
	switch {
	case err != nil:
		return err
	case c.Kind != nil && c.Kind.Type != nil && *c.Kind.Type == goEDS && c.Name != "":
		r.follow(c.Name, cmp.Or(c.EDS.Service, c.Name))
		return r.add(Upstream{Name: c.Name})
	case c.Kind != nil && c.Kind.Type != nil && c.Name != "":
		return r.add(Upstream{Name: c.Name, To: c.Assignment.Endpoints.addresses()})
	case c.Cluster != "":
		if c.Cluster != name { // by either
			if err := r.tell(name, c.Endpoints.addresses()); err != nil {
				return err
			}
		}
		return r.tell(c.Cluster, c.Endpoints.addresses())
	}
	return nil
}
