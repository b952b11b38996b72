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
}

// Scopes says whether e asks that its gateways call of a Service what their routes call, and no more.
func (e *AmbientEdge) Scopes() bool {
	return e.Pairs() && e.Spec.Authorization.Pair != nil && e.Spec.Authorization.Pair.Scope == PairScopeRoute
}

// Closes says whether e asks that Services without a list of callers be closed to everybody but its gateways.
func (e *AmbientEdge) Closes() bool {
	return e.Pairs() && e.Spec.Authorization.Pair != nil && e.Spec.Authorization.Pair.DefaultDeny == DefaultDenySet
}
