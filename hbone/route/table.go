package route

import (
	"maps"
	"slices"
	"strings"
)

// Table is what is known of the mesh. It is not safe for concurrent use; its owner guards it.
type Table struct {
	services  map[string]*Service    // by key
	vips      map[string][]*Service  // by network/ip; several may share one, the last one set answers
	workloads map[string]*Workload   // by uid
	ips       map[string][]*Workload // by network/ip; likewise
	members   map[string][]*Workload // by Service's key, sorted by uid
}

// NewTable returns an empty Table.
func NewTable() *Table {
	return &Table{
		services: map[string]*Service{}, vips: map[string][]*Service{},
		workloads: map[string]*Workload{}, ips: map[string][]*Workload{},
		members: map[string][]*Workload{},
	}
}

// SetService adds a Service or replaces it. It must not change afterwards.
func (t *Table) SetService(s *Service) {
	t.Remove(s.Key())
	t.services[s.Key()] = s
	for _, a := range s.Addresses {
		add(t.vips, a.Key(), s)
	}
}

// SetWorkload adds a workload or replaces it. It must not change afterwards.
func (t *Table) SetWorkload(w *Workload) {
	t.Remove(w.UID)
	t.workloads[w.UID] = w
	if !w.HostNetwork { // else its address is the node's, and others have it too
		for _, ip := range w.Addresses {
			add(t.ips, NetAddr{w.Network, ip}.Key(), w)
		}
	}
	for key := range w.Services {
		i, _ := slices.BinarySearchFunc(t.members[key], w.UID, byUID)
		t.members[key] = slices.Insert(t.members[key], i, w)
	}
}

// Remove takes away what has that name: a Service's key or a workload's uid. Other names are ignored.
func (t *Table) Remove(name string) {
	if s := t.services[name]; s != nil {
		delete(t.services, name)
		for _, a := range s.Addresses {
			drop(t.vips, a.Key(), s)
		}
	}
	w := t.workloads[name]
	if w == nil {
		return
	}
	delete(t.workloads, name)
	for _, ip := range w.Addresses {
		drop(t.ips, NetAddr{w.Network, ip}.Key(), w)
	}
	for key := range w.Services {
		if i, ok := slices.BinarySearchFunc(t.members[key], name, byUID); ok {
			t.members[key] = slices.Delete(t.members[key], i, i+1)
		}
		if len(t.members[key]) == 0 {
			delete(t.members, key)
		}
	}
}

// add makes v the last of key, once.
func add[T any](m map[string][]*T, key string, v *T) {
	drop(m, key, v)
	m[key] = append(m[key], v)
}

func drop[T any](m map[string][]*T, key string, v *T) {
	m[key] = slices.DeleteFunc(m[key], func(o *T) bool { return o == v })
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

func last[T any](list []*T) *T {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// Has reports whether something has that name: a Service's key, a workload's uid, or an address of either.
func (t *Table) Has(name string) bool {
	return t.services[name] != nil || len(t.vips[name]) > 0 || t.workloads[name] != nil || len(t.ips[name]) > 0
}

// Empty reports whether a Service has that key and no workloads.
func (t *Table) Empty(key string) bool { return t.services[key] != nil && len(t.members[key]) == 0 }

// Names lists what is known by other names and changes with what has that name (a Service's key or a workload's uid): its addresses, and the
// Services that a workload is in.
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
		names = slices.AppendSeq(names, maps.Keys(w.Services))
	}
	return names
}

// Workload is the workload at an address, nil when there is none.
func (t *Table) Workload(a NetAddr) *Workload { return last(t.ips[a.Key()]) }

// endpoints lists a Service's workloads in a stable order. The list is the table's own.
func (t *Table) endpoints(key string) []*Workload { return t.members[key] }

func byUID(w *Workload, uid string) int { return strings.Compare(w.UID, uid) }
