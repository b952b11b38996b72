package v1alpha1

// PairScope says how much of a Service a gateway may call by its waypoint.
//
// +kubebuilder:validation:Enum=Service;Route
type PairScope string

// The scopes. The empty one is PairScopeService.
const (
	PairScopeService PairScope = "Service"
	PairScopeRoute   PairScope = "Route"
)

// DefaultDeny says what becomes of a Service whose pods have no list of callers.
//
// +kubebuilder:validation:Enum=Keep;Set
type DefaultDeny string

// The values. The empty one is DefaultDenyKeep.
const (
	DefaultDenyKeep DefaultDeny = "Keep"
	DefaultDenySet  DefaultDeny = "Set"
)

// PairHeaders says what is done about headers that a gateway writes.
//
// +kubebuilder:validation:Enum=Ignore;Pin
type PairHeaders string

// The values. The empty one is PairHeadersIgnore.
const (
	PairHeadersIgnore PairHeaders = "Ignore"
	PairHeadersPin    PairHeaders = "Pin"
)

// Pairing says how authorization Pair is done.
type Pairing struct {
	// Scope is Service (by the waypoint the gateway gets what the pods' own policies give it) or Route (of that, no more than what its routes call: hosts, methods and paths of the HTTPRoutes and GRPCRoutes that
	// count for it and lead to the Service, as the waypoint sees them; what these cannot say is left open, and ISM360 tells). Nobody else is concerned, and neither lets the gateway in where the pods refuse it. Empty means Service.
	//
	// +optional
	Scope PairScope `json:"scope,omitempty"`
	// DefaultDeny is Keep (a Service whose pods have no list of callers stays open to everybody but the gateway's way past its waypoint) or Set (it is closed: the waypoint lets in the gateway alone, and the
	// pods, on the ports of the Service, nobody but the waypoint. Every other caller is refused from then on: ISM361). Where the pods have a list it changes nothing. Empty means Keep.
	//
	// +optional
	DefaultDeny DefaultDeny `json:"defaultDeny,omitempty"`
	// Headers is Ignore, or Pin: of a header that the gateway writes, and by which a policy at the waypoint lets callers in, the waypoint refuses every request
	// that has it and does not come from the gateway. It is done where every route of the gateway takes away or overwrites what clients send under that
	// name; else a finding says why not, and nothing is written. Callers inside the mesh who write the header themselves are refused from then on. Empty means Ignore.
	//
	// +optional
	Headers PairHeaders `json:"headers,omitempty"`
}

// Scopes says whether e asks that its gateways call of a Service what their routes call, and no more.
func (e *AmbientEdge) Scopes() bool {
	return e.Pairs() && e.Spec.Authorization.Pair != nil && e.Spec.Authorization.Pair.Scope == PairScopeRoute
}

// Closes says whether e asks that Services without a list of callers be closed to everybody but its gateways.
func (e *AmbientEdge) Closes() bool {
	return e.Pairs() && e.Spec.Authorization.Pair != nil && e.Spec.Authorization.Pair.DefaultDeny == DefaultDenySet
}

// Pins says whether e asks for headers to be pinned.
func (e *AmbientEdge) Pins() bool {
	return e.Pairs() && e.Spec.Authorization.Pair != nil && e.Spec.Authorization.Pair.Headers == PairHeadersPin
}

// ReadsRules says whether what e asks for depends on what its gateways do to requests: the policy objects of their vendors are read then.
func (e *AmbientEdge) ReadsRules() bool { return e.Pins() }
