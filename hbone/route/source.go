package route

import (
	"context"
	"net/netip"
	"strings"
)

// Source is who dials, and how.
type Source struct {
	Namespace string
	Network   string // empty: our own
	Domain    string // of Services; empty: cluster.local
	// IP is the dialer's own address. Its workload tells where we are, for Services that prefer near endpoints; zero when nobody knows.
	IP netip.Addr
	// OnDemand says that the Table holds what was asked for and no more. A name that is given without its namespace is then the dialer's own namespace's or
	// nobody's: what else is held of that name came by what others have dialled, and nothing may hang on that.
	OnDemand bool
	// Passthrough lets addresses that nobody knows be dialled as they are.
	Passthrough bool
	// Ingress goes as Istio's own ingress gateways do: through a Service's waypoint only where the Service asks for it (the label
	// istio.io/ingress-use-waypoint), and says so to the waypoint. Else always through it, as ztunnel does.
	Ingress bool
	// FailOpen goes around a Service's waypoint that is not there or has no ready pod, and so around its policies. Else that is an error.
	FailOpen bool
	// Memory remembers tunnels and failures of endpoints, which the choice among them then goes by. Nil: by weight alone.
	Memory *Memory
}

// MissingError says which names must be asked for before the way is known.
type MissingError struct{ Names []string }

func (e *MissingError) Error() string { return "not known yet: " + strings.Join(e.Names, ", ") }

// Error says why there is no way, and what to do.
type Error struct {
	Target string
	Why    string
	// Names is what istiod calls what was looked at.
	Names []string
}

func (e *Error) Error() string { return "no route to " + e.Target + ": " + e.Why }

// affinityKey is the context's key of WithKey.
type affinityKey struct{}

// WithKey makes dials with the context go to one endpoint for a key (a user, a session): always the same as long as it is there. The choice
// is made when a tunnel is opened: requests on a tunnel that is kept go where that goes.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, affinityKey{}, key)
}

// Key is the key that WithKey gave the context; empty when there is none.
func Key(ctx context.Context) string {
	key, _ := ctx.Value(affinityKey{}).(string)
	return key
}
