package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AmbientEdge says that a gateway is an edge of the mesh: it is brought in, its backends get waypoints, and the way between is
// kept as it should be.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=aedge
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=".spec.mode"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Enrolled",type=string,JSONPath=".status.conditions[?(@.type=='Enrolled')].status"
// +kubebuilder:printcolumn:name="Waypoints",type=string,JSONPath=".status.conditions[?(@.type=='WaypointsReady')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type AmbientEdge struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	Spec AmbientEdgeSpec `json:"spec"`
	// Status is what was seen. It is written by the controller alone.
	Status AmbientEdgeStatus `json:"status,omitempty"`
}

// AmbientEdgeList is a list of AmbientEdges.
//
// +kubebuilder:object:root=true
type AmbientEdgeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AmbientEdge `json:"items"`
}

// AmbientEdgeSpec names the gateway and says what may be done about it.
//
// +kubebuilder:validation:XValidation:rule="has(self.targetRefs) != has(self.workloadRefs)",message="set exactly one of targetRefs and workloadRefs: Gateways by the one, other proxies by the other"
// +kubebuilder:validation:XValidation:rule="!has(self.workloadRefs) || (has(self.backends) && (has(self.backends.services) || (has(self.backends.from) && self.backends.from == 'Ingresses')))",message="with workloadRefs no routes say where the gateway sends to: list backends.services, or set backends.from to Ingresses"
// +kubebuilder:validation:XValidation:rule="!has(self.targetRefs) || !has(self.backends) || !has(self.backends.from) || self.backends.from == 'Routes'",message="backends.from Ingresses is for workloadRefs: Gateways have routes"
// +kubebuilder:validation:XValidation:rule="!has(self.waypoint) || !has(self.waypoint.policy) || self.waypoint.policy != 'Create' || has(self.waypoint.name)",message="waypoint.policy Create needs waypoint.name"
// +kubebuilder:validation:XValidation:rule="!has(self.authorization) || !has(self.authorization.mode) || self.authorization.mode in ['Check', 'Off'] || !has(self.capture) || self.capture != 'None'",message="authorization.mode Lock and Pair need a gateway with an identity of the mesh: capture None has none"
// +kubebuilder:validation:XValidation:rule="!has(self.authorization) || !has(self.authorization.mode) || self.authorization.mode in ['Check', 'Off'] || !has(self.waypoint) || !has(self.waypoint.policy) || self.waypoint.policy != 'None'",message="authorization.mode Lock and Pair leave the way by the waypoint only: waypoint.policy None has none"
// +kubebuilder:validation:XValidation:rule="!has(self.authorization) || !has(self.authorization.pair) || !has(self.authorization.pair.scope) || self.authorization.pair.scope != 'Route' || (has(self.targetRefs) && (!has(self.backends) || !has(self.backends.services)))",message="authorization.pair.scope Route goes by what routes call: it needs targetRefs, and no backends.services"
type AmbientEdgeSpec struct {
	// TargetRefs are the Gateways, in this namespace. Empty: the gateway is named by workloadRefs.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	TargetRefs []TargetRef `json:"targetRefs,omitempty"`
	// WorkloadRefs are the gateway's workloads, in this namespace, where no Gateway object stands for it. Empty: it is named by targetRefs.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=kind
	// +listMapKey=name
	WorkloadRefs []WorkloadRef `json:"workloadRefs,omitempty"`
	// Mode is Observe (the plan and findings only, nothing is written but this object's status) or Manage. Empty means Observe.
	//
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// Capture says how the gateway speaks with the mesh: Auto (as its kind of gateway does), Ambient (ztunnel carries its
	// connections), Native (it speaks HBONE itself), None (it stays outside). Empty means Auto.
	//
	// +optional
	Capture Capture `json:"capture,omitempty"`
	// Backends are the Services that the gateway sends to. Empty: those that its routes name.
	//
	// +optional
	Backends *Backends `json:"backends,omitempty"`
	// Waypoint says what stands before the backends. Empty: the waypoints that are there.
	//
	// +optional
	Waypoint *Waypoint `json:"waypoint,omitempty"`
	// Authorization says what is kept up by policies. Empty: nothing, and what they do on the gateway's way is told.
	//
	// +optional
	Authorization *Authorization `json:"authorization,omitempty"`
	// TakeOver names fields that somebody else has set to another value, and that are set anyway where the gateway's own switch needs them:
	// metadata.labels[istio.io/ingress-use-waypoint], spec.routingType. The value of before is kept in an annotation of the object, and comes
	// back with undo. Empty: nothing is taken over.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	TakeOver []string `json:"takeOver,omitempty"`
	// OnDelete is Undo (everything that was written is taken back) or Keep (all of it stays as it is, and belongs to no AmbientEdge any more). Empty means Undo.
	//
	// +optional
	OnDelete OnDelete `json:"onDelete,omitempty"`
}

// TargetRef is a Gateway of the Gateway API.
type TargetRef struct {
	// Group is gateway.networking.k8s.io, or empty.
	//
	// +optional
	// +kubebuilder:validation:Enum="";gateway.networking.k8s.io
	Group string `json:"group,omitempty"`
	// Kind is Gateway, or empty.
	//
	// +optional
	// +kubebuilder:validation:Enum="";Gateway
	Kind string `json:"kind,omitempty"`
	// Name is the Gateway's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// WorkloadRef is a workload that runs a gateway's pods.
type WorkloadRef struct {
	// Kind is Deployment or DaemonSet.
	//
	// +kubebuilder:validation:Enum=Deployment;DaemonSet
	Kind string `json:"kind"`
	// Name is the workload's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Mode is how far the controller goes.
//
// +kubebuilder:validation:Enum=Observe;Manage
type Mode string

// The modes. The empty one is ModeObserve.
const (
	ModeObserve Mode = "Observe"
	ModeManage  Mode = "Manage"
)

// Capture is how a gateway speaks with the mesh.
//
// +kubebuilder:validation:Enum=Auto;Ambient;Native;None
type Capture string

// The kinds of capture. The empty one is CaptureAuto.
const (
	CaptureAuto    Capture = "Auto"
	CaptureAmbient Capture = "Ambient"
	CaptureNative  Capture = "Native"
	CaptureNone    Capture = "None"
)

// Backends are what a gateway sends to.
//
// +kubebuilder:validation:XValidation:rule="has(self.services) != has(self.from)",message="set exactly one of from and services"
type Backends struct {
	// From is Routes: the Services that the routes of the Gateways name, or routes that these delegate to; or Ingresses, with workloadRefs of a known
	// Ingress controller: those that the Ingresses of its classes name. Empty: services names them.
	//
	// +optional
	// +kubebuilder:validation:Enum=Routes;Ingresses
	From string `json:"from,omitempty"`
	// Services are named one by one. One in another namespace needs that namespace's consent. Empty: from says where they are found.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	Services []ServiceRef `json:"services,omitempty"`
}

// The values of Backends.From.
const (
	FromRoutes    = "Routes"
	FromIngresses = "Ingresses"
)

// ServiceRef is a Service.
type ServiceRef struct {
	// Namespace is the Service's. That of the AmbientEdge is written out too: namespace and name are the key by which several may apply entries of the
	// list, and a key of a list must be there.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// Name is the Service's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// WaypointPolicy says where waypoints come from.
//
// +kubebuilder:validation:Enum=Use;Create;None
type WaypointPolicy string

// The policies. The empty one is WaypointUse.
const (
	WaypointUse    WaypointPolicy = "Use"    // those that are there: by name, or by the labels that are set already
	WaypointCreate WaypointPolicy = "Create" // one by name in each backend's namespace, unless it is there
	WaypointNone   WaypointPolicy = "None"   // none is asked for, and none is taken away
)

// Waypoint is what stands before the backends.
type Waypoint struct {
	// Policy is Use, Create or None. Empty means Use.
	//
	// +optional
	Policy WaypointPolicy `json:"policy,omitempty"`
	// Name is the waypoint's, in the namespace of each backend. With Use, empty means the one that Service or namespace name already.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// AuthorizationMode says what is kept up by policies.
//
// +kubebuilder:validation:Enum=Check;Off;Lock;Pair
type AuthorizationMode string

// The modes. The empty one is AuthorizationCheck.
const (
	AuthorizationCheck AuthorizationMode = "Check"
	AuthorizationOff   AuthorizationMode = "Off"
	AuthorizationLock  AuthorizationMode = "Lock"
	AuthorizationPair  AuthorizationMode = "Pair"
)

// Authorization says what is kept up by policies.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pair) || (has(self.mode) && self.mode == 'Pair')",message="authorization.pair says how Pair is done: it needs authorization.mode Pair"
type Authorization struct {
	// Mode is Check (no policy is written, and the status tells what those that stand do on the gateway's way), "Off" (nor does it tell that, but for errors, which hold back what would void a policy or have one refuse the gateway; with its quotes, as YAML takes the bare word for false), or Lock: once a Service is wired, an AuthorizationPolicy DENY at its pods keeps the gateway's identity from
	// them, on the Service's ports, so that the gateway reaches them by the waypoint only; nobody else is concerned. Pair does so too, and before a Service is led to its waypoint it has the waypoint answer every
	// caller as the policies at the Service's pods do, and these admit the waypoint; where that cannot be had the Service is not led there. Empty means Check.
	//
	// +optional
	Mode AuthorizationMode `json:"mode,omitempty"`
	// Pair says how Pair is done, and is for that mode alone. Empty: as each of its fields is when it is empty.
	//
	// +optional
	Pair *Pairing `json:"pair,omitempty"`
}

// Locks says whether e asks for what authorization Lock does. Pair does it too.
func (e *AmbientEdge) Locks() bool {
	return e.Spec.Authorization != nil && e.Spec.Authorization.Mode == AuthorizationLock || e.Pairs()
}

// Pairs says whether e asks for authorization Pair.
func (e *AmbientEdge) Pairs() bool {
	return e.Spec.Authorization != nil && e.Spec.Authorization.Mode == AuthorizationPair
}

// Untold says whether a finding is about policies and holds nothing back, and e asks to be told of none.
func (e *AmbientEdge) Untold(f *Finding) bool {
	return e.Spec.Authorization != nil && e.Spec.Authorization.Mode == AuthorizationOff && f.Severity != SeverityError &&
		slices.Contains([]string{FindingUnenforced, FindingVoided, FindingNotAdmitted, FindingPathChange, FindingBegins}, f.Code)
}

// OnDelete says what becomes of what was written.
//
// +kubebuilder:validation:Enum=Undo;Keep
type OnDelete string

// The values. The empty one is OnDeleteUndo.
const (
	OnDeleteUndo OnDelete = "Undo"
	OnDeleteKeep OnDelete = "Keep"
)
