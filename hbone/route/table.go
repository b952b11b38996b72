package route

import (
	"iter"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/hbone/internal/cow"
)

// Table is what is known of the mesh. One goroutine at a time may use and change it; a Snapshot of it is for all.
type Table struct {
	services  cow.Map[string, *Service]
	vips      cow.Map[NetAddr, *owners[Service]]  // several may share one
	hosts     cow.Map[string, *owners[Service]]   // by hostname: one in each namespace
	workloads cow.Map[string, *Workload]          // by uid
	ips       cow.Map[NetAddr, *owners[Workload]] // likewise
	members   cow.Map[string, *owners[Workload]]  // by Service's key, sorted by uid
	ranges    *owners[Service]                    // that have Ranges
	writing   *byte                               // owns the lists that no snapshot has; nil: there are none
}

// owners is a list that is copied when a snapshot has it, too.
type owners[T any] struct {
	writing *byte
	list    []*T
}

func (o *owners[T]) all() []*T {
	if o == nil {
		return nil
	}
	return o.list
}

// NewTable returns an empty Table.
func NewTable() *Table { return &Table{} }

// Snapshot is the Table as it is now. It does not change, and any number of goroutines may read it.
func (t *Table) Snapshot() *Table {
	t.writing = nil
	return &Table{
		services: t.services.Snapshot(), vips: t.vips.Snapshot(), hosts: t.hosts.Snapshot(),
		workloads: t.workloads.Snapshot(), ips: t.ips.Snapshot(), members: t.members.Snapshot(), ranges: t.ranges,
	}
}

// mine is o, or a copy of it that may be changed.
func mine[T any](t *Table, o *owners[T]) *owners[T] {
	if t.writing == nil {
		t.writing = new(byte)
	}
	switch {
	case o == nil:
		return &owners[T]{writing: t.writing}
	case o.writing != t.writing:
		return &owners[T]{writing: t.writing, list: slices.Clone(o.list)}
	}
	return o
}

// SetService adds a Service or replaces it. It must not change afterwards.
func (t *Table) SetService(s *Service) {
	t.Remove(s.Key())
	t.services.Set(s.Key(), s)
	add(t, &t.hosts, s.Hostname, s)
	for _, a := range s.Addresses {
		add(t, &t.vips, a, s)
	}
	if len(s.Ranges) > 0 {
		t.ranges = mine(t, t.ranges)
		t.ranges.list = append(t.ranges.list, s)
	}
}

// SetWorkload adds a workload or replaces it. It must not change afterwards.
func (t *Table) SetWorkload(w *Workload) {
	t.Remove(w.UID)
	t.workloads.Set(w.UID, w)
	if !w.HostNetwork { // else its address is the node's, and others have it too
		for _, ip := range w.Addresses {
			add(t, &t.ips, NetAddr{w.Network, ip}, w)
		}
	}
	for _, m := range w.Services {
		o := mine(t, t.members.Get(m.Service))
		if i, there := slices.BinarySearchFunc(o.list, w.UID, byUID); !there {
			o.list = slices.Insert(o.list, i, w)
		}
		t.members.Set(m.Service, o)
	}
}

// Remove takes away what has that name: a Service's key or a workload's uid. Other names are ignored.
func (t *Table) Remove(name string) {
	if s := t.services.Get(name); s != nil {
		t.services.Delete(name)
		drop(t, &t.hosts, s.Hostname, s)
		for _, a := range s.Addresses {
			drop(t, &t.vips, a, s)
		}
		if len(s.Ranges) > 0 {
			t.ranges = mine(t, t.ranges)
			t.ranges.list = without(t.ranges.list, s)
		}
	}
	w := t.workloads.Get(name)
	if w == nil {
		return
	}
	t.workloads.Delete(name)
	for _, ip := range w.Addresses {
		drop(t, &t.ips, NetAddr{w.Network, ip}, w)
	}
	for _, m := range w.Services {
		drop(t, &t.members, m.Service, w)
	}
}

// add makes v the last of key, once.
func add[K comparable, T any](t *Table, m *cow.Map[K, *owners[T]], key K, v *T) {
	o := mine(t, m.Get(key))
	o.list = append(without(o.list, v), v)
	m.Set(key, o)
}

func drop[K comparable, T any](t *Table, m *cow.Map[K, *owners[T]], key K, v *T) {
	o := m.Get(key)
	if o == nil {
		return
	}
	o = mine(t, o)
	if o.list = without(o.list, v); len(o.list) == 0 {
		m.Delete(key)
		return
	}
	m.Set(key, o)
}

func without[T any](list []*T, v *T) []*T {
	return slices.DeleteFunc(list, func(o *T) bool { return o == v })
}

func last[T any](list []*T) *T {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// Len is how many Services and workloads there are.
func (t *Table) Len() (services, workloads int) { return t.services.Len(), t.workloads.Len() }

// Has reports whether something has that name: a Service's key, a workload's uid, or network/ip of either.
func (t *Table) Has(name string) bool {
	if t.services.Get(name) != nil || t.workloads.Get(name) != nil {
		return true
	}
	a, ok := ParseNetAddr(name)
	return ok && (len(t.vips.Get(a).all()) > 0 || len(t.ips.Get(a).all()) > 0)
}

// Empty reports whether a Service has that key and no workloads.
func (t *Table) Empty(key string) bool {
	return t.services.Get(key) != nil && len(t.members.Get(key).all()) == 0
}

// Behind counts the workloads of the Services that have that name (a key, or network/ip), -1 when there is no such Service.
func (t *Table) Behind(name string) int {
	if t.services.Get(name) != nil {
		return len(t.members.Get(name).all())
	}
	a, ok := ParseNetAddr(name)
	list := t.vips.Get(a).all()
	if !ok || len(list) == 0 {
		return -1
	}
	n := 0
	for _, s := range list {
		n += len(t.members.Get(s.Key()).all())
	}
	return n
}

// Under lists all that stands behind a name: the Service or workload whose key or uid it is, or whose network/ip, and the workloads of those Services. Some
// may be in it twice.
func (t *Table) Under(name string) []string {
	var names []string
	service := func(s *Service) {
		names = append(names, s.Key())
		for _, w := range t.members.Get(s.Key()).all() {
			names = append(names, w.UID)
		}
	}
	if s := t.services.Get(name); s != nil {
		service(s)
	}
	if t.workloads.Get(name) != nil {
		names = append(names, name)
	}
	a, ok := ParseNetAddr(name)
	if !ok {
		return names
	}
	for _, s := range t.vips.Get(a).all() {
		service(s)
	}
	for _, w := range t.ips.Get(a).all() {
		names = append(names, w.UID)
	}
	return names
}

// Names lists what is known by other names and changes with what has that name (a Service's key or a workload's uid): its addresses, and the
// Services that a workload is in.
func (t *Table) Names(name string) []string {
	var names []string
	if s := t.services.Get(name); s != nil {
		for _, a := range s.Addresses {
			names = append(names, a.Key())
		}
	}
	if w := t.workloads.Get(name); w != nil {
		for _, ip := range w.Addresses {
			names = append(names, NetAddr{w.Network, ip}.Key())
		}
		for _, m := range w.Services {
			names = append(names, m.Service)
		}
	}
	return names
}

// Workload is the workload at an address, nil when there is none.
func (t *Table) Workload(a NetAddr) *Workload { return last(t.ips.Get(a).all()) }

// Service is the Service of that key, nil when there is none.
func (t *Table) Service(key string) *Service { return t.services.Get(key) }

// WorkloadByUID is the workload of that uid, nil when there is none.
func (t *Table) WorkloadByUID(uid string) *Workload { return t.workloads.Get(uid) }

// Endpoints lists a Service's workloads, sorted by uid. The list must not be changed.
func (t *Table) Endpoints(key string) []*Workload { return t.members.Get(key).all() }

func byUID(w *Workload, uid string) int { return strings.Compare(w.UID, uid) }

// best is the one of several Services of a name or an address that a dialer of namespace means: its own namespace's, else the canonical
// one, else the first by name, in whatever order istiod told of them; nil when it sees none.
func best(list []*Service, namespace string) *Service {
	var found *Service
	for _, s := range list {
		if s.visible(namespace) && (found == nil || s.before(found, namespace)) {
			found = s
		}
	}
	return found
}

// before reports whether a dialer of namespace means s rather than o.
func (s *Service) before(o *Service, namespace string) bool {
	if mine, its := s.Namespace == namespace, o.Namespace == namespace; mine != its {
		return mine
	}
	if s.Canonical != o.Canonical {
		return s.Canonical
	}
	return s.Namespace < o.Namespace || s.Namespace == o.Namespace && s.Hostname < o.Hostname
}

// visible reports whether dialers of namespace see s.
func (s *Service) visible(namespace string) bool { return !s.Private || s.Namespace == namespace }

// Services gives all Services, in no order.
func (t *Table) Services() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		for _, s := range t.services.All() {
			if !yield(s) {
				return
			}
		}
	}
}

// Workloads gives all workloads, in no order.
func (t *Table) Workloads() iter.Seq[*Workload] {
	return func(yield func(*Workload) bool) {
		for _, w := range t.workloads.All() {
			if !yield(w) {
				return
			}
		}
	}
}
