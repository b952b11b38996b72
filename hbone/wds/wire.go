package wds

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"
)

// kind is how a field that is known is written.
type kind uint8

const (
	text    kind = iota + 1 // a string, bytes or a message
	number                  // a varint
	numbers                 // varints, packed or not
)

// fits reports whether a field of that kind may have that wire type.
func (k kind) fits(typ protowire.Type) bool {
	return k == 0 || typ == protowire.BytesType && k != number || typ == protowire.VarintType && k != text
}

// fields are those of a message that are known, by number.
type fields []kind

// of is the kind of a field, 0 when it is not known.
func (f fields) of(num protowire.Number) kind {
	if num < 0 || int64(num) >= int64(len(f)) {
		return 0
	}
	return f[num]
}

// field is one field of a message. Unknown fields are skipped by whoever walks over them.
type field struct {
	num   protowire.Number
	bytes []byte // of a string, bytes or message
	n     uint64 // of a varint
}

// walk calls f for each field of a message. One that is known and of another wire type is an error: it would be read as if it were not there.
func walk(b []byte, known fields, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if !known.of(num).fits(typ) {
			return fmt.Errorf("field %d: its wire type is %d, which the field cannot have", num, typ)
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
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
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
