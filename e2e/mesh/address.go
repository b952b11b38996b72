package mesh

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// AddAddress gives the mesh's namespace one more address, so that a test may listen there in the place of a pod. It goes with the mesh. An
// address that is there already is an error.
func (m *Mesh) AddAddress(addr netip.Addr) error {
	err := m.NS.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		own := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: own})
	})
	if err != nil {
		return fmt.Errorf("add address %v to the mesh: %w", addr, err)
	}
	return nil
}
