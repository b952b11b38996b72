package explain

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Answer says what becomes of requests.
type Answer struct {
	// From and To name both ends: Kind namespace/name.
	From, To string
	// Verdict over all ways. On is what a Depends depends on.
	Verdict policy.Verdict
	On      string
	Ways    []Way
	// TCP says that what is addressed speaks no HTTP, as its Service's port has it.
	TCP bool
	// Notes are what is assumed, and what is not looked at.
	Notes []string

	gateway   string // namespace/name of the gateway that sends
	portAsked bool   // the question names one of several ports
}

// Way is one way that requests take.
type Way struct {
	// Client says which of the source's pods send by it; empty is all of them.
	Client string
	// Doubt says why it is not known whether it is taken; empty: it is.
	Doubt string
	// Share is how much of the connections takes it, in per cent, where a canary waypoint stands beside the first. 0: all.
	Share int
	// Why are the reasons that it leads so.
	Why  []string
	Hops []Hop
	// Verdict of all hops of the way; what is asked of others before its client is none of them.
	Verdict policy.Verdict

	path    policy.Path
	request policy.Request
	blocked string // why nothing gets through whatever the policies are
	pods    int
	// sources are who sends, and waypointIDs who the waypoint is, each by itself.
	sources, waypointIDs []spiffeid.ID
	targets              []string
}

// Hop is one connection.
type Hop struct {
	From, To  Node
	Transport Transport
	// Expected are the SPIFFE ids of which To must show one. None: nobody asks.
	Expected []string
	// Seen is who From is to To: SPIFFE ids, of which it shows one. None: To sees nobody, or, with Unseen, nobody knows whom.
	Seen   []string
	Unseen bool
	// Enforcer is who decides at To, and Decision what. Of EnforcerNone there is none, and Said may say why.
	Enforcer Enforcer
	Decision policy.Decision
	Said     string
	// Before says that the hop leads to the source of the question: its decision is none about the question's requests.
	Before bool
}

// On is what a Depends depends on.
func (h *Hop) On() string {
	if h.Said != "" && h.Decision.On == policy.OnUnreadable {
		return h.Said
	}
	return h.Decision.On.String()
}

// addOn adds what a Depends depends on to a list that has it not yet: each part once.
func (h *Hop) addOn(list []string) []string {
	parts := []string{h.On()}
	if h.Said == "" || h.Decision.On != policy.OnUnreadable {
		parts = strings.Split(parts[0], ", ")
	}
	for _, p := range parts {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// Node is an end of a hop.
type Node struct {
	Kind NodeKind
	// Name is Kind namespace/name, or another text.
	Name string
	// Detail in a few words.
	Detail string
}

// NodeKind is what stands at the end of a hop.
type NodeKind string

// The kinds of nodes.
const (
	NodeOutside  NodeKind = "outside"
	NodeGateway  NodeKind = "gateway"
	NodeClient   NodeKind = "client"
	NodeWaypoint NodeKind = "waypoint"
	NodePods     NodeKind = "pods"
)

// Transport is what carries a hop.
type Transport string

// The transports.
const (
	// TransportAny is that of clients outside, which nothing here tells.
	TransportAny Transport = "any"
	// TransportPlaintext has no identities.
	TransportPlaintext Transport = "plaintext"
	// TransportHBONE is mutual TLS by the client's ztunnel.
	TransportHBONE Transport = "hbone"
	// TransportNative is mutual TLS by the client itself.
	TransportNative Transport = "hbone-native"
)

// Enforcer is who decides at the end of a hop.
type Enforcer string

// The enforcers.
const (
	EnforcerNone     Enforcer = "none"
	EnforcerZtunnel  Enforcer = "ztunnel"
	EnforcerWaypoint Enforcer = "waypoint"
	// EnforcerItself is a pod that takes HBONE itself, and has to enforce what a ztunnel would.
	EnforcerItself Enforcer = "itself"
	// EnforcerSidecar is not looked at.
	EnforcerSidecar Enforcer = "sidecar"
	// EnforcerUnknown is whoever there may be outside.
	EnforcerUnknown Enforcer = "unknown"
)

// Deciding is the hop that the way's verdict comes from, and its decision; nil where nothing gets through for another reason, or nobody decides.
func (w *Way) Deciding() *Hop {
	var last *Hop
	for i := range w.Hops {
		h := &w.Hops[i]
		if h.Before || h.Enforcer == EnforcerNone {
			continue
		}
		if last = h; h.Decision.Verdict == w.Verdict && w.Verdict != policy.Allow {
			return h
		}
	}
	return last
}

// Blocked says why nothing gets through on the way, whatever the policies are. Empty: it does.
func (w *Way) Blocked() string { return w.blocked }

// Targets are what a client dials who takes the way, HOST:PORT each: the Service by its name, or pods. None: they are not known.
func (w *Way) Targets() []string { return w.targets }

// Source is who sends on the way: SPIFFE ids, of which it is one. None: it has none, or nobody knows it.
func (w *Way) Source() []spiffeid.ID { return w.sources }

// Short is the way in a line: what it leads through.
func (w *Way) Short() string {
	s := ""
	for _, h := range w.Hops {
		if h.Before {
			continue
		}
		if s == "" {
			s = string(h.From.Kind)
		}
		switch s += " > "; h.To.Kind {
		case NodeWaypoint:
			s += h.To.Name
		default:
			s += "pods"
		}
		if h.Transport == TransportPlaintext {
			s += " (plaintext)"
		}
	}
	return s
}
