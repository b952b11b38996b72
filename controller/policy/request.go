package policy

import (
	"math/bits"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Protocol is how a waypoint reads a Service's port, by its appProtocol or name.
type Protocol uint8

// The protocols. HTTP is every one that Envoy reads requests of.
const (
	HTTP Protocol = iota
	TCP
)

// Request is a class of requests: each attribute is known, one of a few, or unknown. The zero value is any request.
type Request struct {
	// Source is the workload that sends. Absent is one outside the mesh, which nobody knows.
	Source Values[spiffeid.ID]
	// SourceIP is the address that the source connects from.
	SourceIP Values[netip.Addr]

	// ServiceIP and ServicePort are what is addressed: they are the destination to a waypoint.
	ServiceIP   Values[netip.Addr]
	ServicePort Values[uint16]
	// WorkloadIP and WorkloadPort are the pod's: they are the destination to its ztunnel.
	WorkloadIP   Values[netip.Addr]
	WorkloadPort Values[uint16]

	// PortAsked says that the ports are part of what is asked, and not only what there is.
	PortAsked bool

	// Protocol is that of the Service's port. ztunnel does not care.
	Protocol Values[Protocol]
	Method   Values[string]
	// Path is as it is sent, query and all.
	Path Values[string]
	// Host is as it is sent, with a port if it has one.
	Host Values[string]
	// Headers by lower-case name. One that is not here is unknown, or absent with NoOtherHeaders.
	Headers        map[string]Values[Header]
	NoOtherHeaders bool
	// RemoteIP is the client's address by X-Forwarded-For, as the mesh counts trusted hops. Absent: there is no such header, or none that can be read,
	// and SourceIP is taken.
	RemoteIP Values[netip.Addr]
	// Token is the JWT. Absent: none is sent.
	Token Values[Token]
}

// Header is the values of a header, one for each time that it is sent.
type Header []string

// Token is a JWT.
type Token struct {
	// Claims as encoding/json reads them: strings, float64, bool, []any, map[string]any; a []string is taken too.
	Claims map[string]any
	// Partial says that there may be other claims.
	Partial bool
	// Bad says that signature or times do not hold.
	Bad bool
	// Elsewhere says that it is not sent as "Authorization: Bearer", so that it may not be found.
	Elsewhere bool
}

// Attributes is a set of attributes of a request.
type Attributes uint16

// The attributes, and what else a decision may depend on: what an external authorizer says, and configuration that is not known here.
const (
	OnSource Attributes = 1 << iota
	OnSourceIP
	OnRemoteIP
	OnDestinationIP
	OnDestinationPort
	OnProtocol
	OnMethod
	OnPath
	OnHost
	OnHeader
	OnToken
	OnExternalAuthorizer
	OnUnreadable
)

var attributeNames = [...]string{
	"source identity", "source address", "client address", "destination address", "destination port", "protocol", "method", "path", "host",
	"header", "token", "external authorizer", "condition that is not understood",
}

// String lists the attributes.
func (a Attributes) String() string {
	names := make([]string, 0, bits.OnesCount16(uint16(a)))
	for i, name := range attributeNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
