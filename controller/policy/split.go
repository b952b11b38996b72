package policy

import (
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// mostParts bounds how many requests a class is taken apart into.
const mostParts = 256

// size is how many values there are; one where nothing is known.
func (v *Values[T]) size() int {
	n := len(v.list)
	if v.absent {
		n++
	}
	return max(n, 1)
}

// parts are requests that differ in one attribute, which has one value in each.
func parts[T any](r *Request, at func(*Request) *Values[T]) []Request {
	v := at(r)
	list := make([]Request, 0, v.size())
	add := func(one Values[T]) {
		part := *r
		*at(&part) = one
		list = append(list, part)
	}
	for _, value := range v.list {
		add(Of(value))
	}
	if v.absent {
		add(Absent[T]())
	}
	return list
}

// apart takes a class apart by the first attribute that has several values. It does not, where there is none, nor where that made too many.
func (r *Request) apart() []Request {
	total := 1
	for _, n := range [...]int{
		r.Source.size(), r.SourceIP.size(), r.RemoteIP.size(), r.ServiceIP.size(), r.ServicePort.size(), r.WorkloadIP.size(), r.WorkloadPort.size(), r.Protocol.size(),
		r.Method.size(), r.Path.size(), r.Host.size(), r.Token.size(),
	} {
		if total *= n; total > mostParts {
			return nil
		}
	}
	switch {
	case total == 1:
		return nil
	case r.Source.size() > 1:
		return parts(r, func(r *Request) *Values[spiffeid.ID] { return &r.Source })
	case r.SourceIP.size() > 1:
		return parts(r, func(r *Request) *Values[netip.Addr] { return &r.SourceIP })
	case r.RemoteIP.size() > 1:
		return parts(r, func(r *Request) *Values[netip.Addr] { return &r.RemoteIP })
	case r.ServiceIP.size() > 1:
		return parts(r, func(r *Request) *Values[netip.Addr] { return &r.ServiceIP })
	case r.ServicePort.size() > 1:
		return parts(r, func(r *Request) *Values[uint16] { return &r.ServicePort })
	case r.WorkloadIP.size() > 1:
		return parts(r, func(r *Request) *Values[netip.Addr] { return &r.WorkloadIP })
	case r.WorkloadPort.size() > 1:
		return parts(r, func(r *Request) *Values[uint16] { return &r.WorkloadPort })
	case r.Protocol.size() > 1:
		return parts(r, func(r *Request) *Values[Protocol] { return &r.Protocol })
	case r.Method.size() > 1:
		return parts(r, func(r *Request) *Values[string] { return &r.Method })
	case r.Path.size() > 1:
		return parts(r, func(r *Request) *Values[string] { return &r.Path })
	case r.Host.size() > 1:
		return parts(r, func(r *Request) *Values[string] { return &r.Host })
	}
	return parts(r, func(r *Request) *Values[Token] { return &r.Token })
}
