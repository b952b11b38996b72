package node

import (
	"fmt"
	"net/netip"
	"sync"
)

// addresses gives pods their IPs. A released address is used again as late as possible, so that
// nothing that still remembers a dead pod meets a living one.
type addresses struct {
	first, last netip.Addr

	mu   sync.Mutex // guards the fields below
	next netip.Addr
	used map[netip.Addr]bool
}

// newAddresses serves the addresses of cidr from 256 above its base on.
func newAddresses(cidr netip.Prefix) *addresses {
	first := addrPlus(cidr.Addr(), 256)
	last := addrPlus(cidr.Addr(), 1<<(32-cidr.Bits())-1)
	return &addresses{first: first, last: last, next: first, used: map[netip.Addr]bool{}}
}

func (a *addresses) take() (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for start := a.next; ; {
		got := a.next
		if a.next = a.next.Next(); a.last.Less(a.next) {
			a.next = a.first
		}
		end := got.As4()[3]
		if !a.used[got] && end != 0 && end != 255 && end != 1 {
			a.used[got] = true
			return got, nil
		}
		if a.next == start {
			return netip.Addr{}, fmt.Errorf("no free pod address between %v and %v", a.first, a.last)
		}
	}
}

func (a *addresses) release(ip netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, ip)
}
