package wds

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a message. Unknown fields are skipped by whoever walks over them.
type field struct {
	num   protowire.Number
	bytes []byte // of a string, bytes or message
	n     uint64 // of a varint
}

// walk calls f for each field of a message.
func walk(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		fd := field{num: num}
		switch typ {
		case protowire.VarintType:
			fd.n, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			fd.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
			fd.num = -1
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if fd.num < 0 {
			continue
		}
		if err := f(fd); err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
	}
	return nil
}

// port is a uint32 that must be a port.
func (f field) port() (uint16, error) {
	if f.n > 65535 {
		return 0, fmt.Errorf("%d is no port", f.n)
	}
	return uint16(f.n), nil
}

// ip is an address of 4 or 16 bytes.
func (f field) ip() (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(f.bytes)
	if !ok {
		return netip.Addr{}, errors.New("an IP address has 4 or 16 bytes")
	}
	return a.Unmap(), nil
}

// packed is a repeated varint, packed or not.
func (f field) packed(add func(uint64) error) error {
	if f.bytes == nil {
		return add(f.n)
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := add(v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
