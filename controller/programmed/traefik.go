package programmed

import (
	"net/url"
	"strconv"
)

// traefikServices reads services by their names: of HTTP, which have URLs, and of TCP and UDP, which have addresses. One that leads to other services has
// neither.
func (r *reader) traefikServices() error {
	return r.object(func(name string) error {
		var x struct {
			Balancer struct {
				Servers []struct {
					URL     string `json:"url"`
					Address string `json:"address"`
				} `json:"servers"`
			} `json:"loadBalancer"`
		}
		if err := r.value(&x); err != nil {
			return err
		}
		u := Upstream{Name: name}
		for _, s := range x.Balancer.Servers {
			a, ok := split(s.Address)
			if s.URL != "" {
				a, ok = ofURL(s.URL)
			}
			if ok {
				u.To = append(u.To, a)
			}
		}
		return r.add(u)
	})
}

// ofURL is where requests to a URL go.
func ofURL(text string) (Address, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return Address{}, false
	}
	if u.Port() == "" {
		port := 80
		if u.Scheme == "https" {
			port = 443
		}
		return Address{Host: u.Hostname(), Port: port}, true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return Address{Host: u.Hostname(), Port: int(n)}, err == nil
}
