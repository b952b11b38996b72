package route

import (
	"maps"
	"slices"
)

// Table is what is known of the mesh. It is not safe for concurrent use; its owner guards it.
type Table struct {
	services  map[string]*Service  // by key
	vips      map[string]*Service  // by network/ip
	workloads map[string]*Workload // by uid
	ips       map[string]*Workload // by network/ip
	members   map[string]map[string]*Workload
}

// NewTable returns an empty Table.
func NewTable() *Table {
	return &Table{
		services: map[string]*Service{}, vips: map[string]*Service{},
		workloads: map[string]*Workload{}, ips: map[string]*Workload{},
		members: map[string]map[string]*Workload{},
	}
}

// SetService adds a Service or replaces it. It must not change afterwards.
func (t *Table) SetService(s *Service) {
	t.Remove(s.Key())
	t.services[s.Key()] = s
	for _, a := range s.Addresses {
		t.vips[a.Key()] = s
	}
}

// SetWorkload adds a workload or replaces it. It must not change afterwards.
func (t *Table) SetWorkload(w *Workload) {
	t.Remove(w.UID)
	t.workloads[w.UID] = w
	for _, ip := range w.Addresses {
		t.ips[NetAddr{w.Network, ip}.Key()] = w
	}
	for key := range w.Services {
		if t.members[key] == nil {
			t.members[key] = map[string]*Workload{}
		}
		t.members[key][w.UID] = w
	}
}

// Remove takes away what has that name: a Service's key or a workload's uid. Other names are ignored.
func (t *Table) Remove(name string) {
	if s := t.services[name]; s != nil {
		delete(t.services, name)
		for _, a := range s.Addresses {
			if t.vips[a.Key()] == s {
				delete(t.vips, a.Key())
			}
		}
	}
	w := t.workloads[name]
	if w == nil {
		return
	}
	delete(t.workloads, name)
	for _, ip := range w.Addresses {
		if key := (NetAddr{w.Network, ip}).Key(); t.ips[key] == w {
			delete(t.ips, key)
		}
	}
	for key := range w.Services {
		if delete(t.members[key], name); len(t.members[key]) == 0 {
			delete(t.members, key)
		}
	}
}

// Has reports whether something has that name: a Service's key, a workload's uid, or an address of either.
func (t *Table) Has(name string) bool {
	return t.services[name] != nil || t.vips[name] != nil || t.workloads[name] != nil || t.ips[name] != nil
}

// Names lists the other names of what has that name (a Service's key or a workload's uid): its addresses.
func (t *Table) Names(name string) []string {
	var names []string
	if s := t.services[name]; s != nil {
		for _, a := range s.Addresses {
			names = append(names, a.Key())
		}
	}
	if w := t.workloads[name]; w != nil {
		for _, ip := range w.Addresses {
			names = append(names, NetAddr{w.Network, ip}.Key())
		}
	}
	return names
}

// Workload is the workload at an address, nil when there is none.
func (t *Table) Workload(a NetAddr) *Workload { return t.ips[a.Key()] }

// endpoints lists a Service's workloads in a stable order.
func (t *Table) endpoints(key string) []*Workload {
	m := t.members[key]
	list := make([]*Workload, 0, len(m))
	for _, uid := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[uid])
	}
	return list
}
