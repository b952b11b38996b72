package route

import (
	"net/netip"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// Memory remembers endpoints by the addresses of their listeners, so that tunnels and failures still count when istiod tells of a pod
// anew. It forgets those that have neither when it has grown. The zero value is ready; any number of goroutines may use it.
type Memory struct {
	mu    sync.Mutex // guards the fields below
	ends  map[netip.AddrPort]*hbone.Endpoint
	sweep int // forget at this size
}

const minSweep = 1024

// endpoint is the one at that address, nil when m is.
func (m *Memory) endpoint(at netip.AddrPort) *hbone.Endpoint {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.ends[at]
	if e != nil {
		return e
	}
	if m.ends == nil {
		m.ends, m.sweep = map[netip.AddrPort]*hbone.Endpoint{}, minSweep
	}
	if len(m.ends) >= m.sweep {
		now := time.Now()
		for at, e := range m.ends {
			if e.Forgettable(now) {
				delete(m.ends, at)
			}
		}
		m.sweep = max(minSweep, 2*len(m.ends))
	}
	e = new(hbone.Endpoint)
	m.ends[at] = e
	return e
}
