package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Limits of lists in a status; what is beyond is counted.
const (
	MaxBackends = 64
	MaxFindings = 64
	MaxSteps    = 64
	MaxHeld     = 8 // of one backend
)

// MaxApproval is how much of an approval's digest a status has, in bytes.
const MaxApproval = 64

// AmbientEdgeStatus is what the controller saw when it looked last.
type AmbientEdgeStatus struct {
	// ObservedGeneration is that of the spec which this status is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions are Ready, Enrolled and WaypointsReady.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Gateways are the gateways of this edge, as found.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Gateways []GatewayStatus `json:"gateways,omitempty"`
	// Backends are where they send to, and how.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Backends []BackendStatus `json:"backends,omitempty"`
	// BackendsLeftOut counts backends beyond the 64 that are listed.
	//
	// +optional
	BackendsLeftOut int32 `json:"backendsLeftOut,omitempty"`
	// Findings are what is wrong or worth knowing.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Findings []Finding `json:"findings,omitempty"`
	// FindingsLeftOut counts findings beyond the 64 that are listed.
	//
	// +optional
	FindingsLeftOut int32 `json:"findingsLeftOut,omitempty"`
	// Plan is what is done, and what is left to do.
	//
	// +optional
	Plan Plan `json:"plan,omitempty"`
}

// GatewayStatus is a gateway as it was found.
type GatewayStatus struct {
	// Name is the Gateway's or workload's.
	Name string `json:"name"`
	// Vendor is the kind of gateway that it was taken for.
	Vendor string `json:"vendor"`
	// Identity is the SPIFFE id that policies in the mesh see. Empty when its pods differ, or there is none.
	//
	// +optional
	Identity string `json:"identity,omitempty"`
	// Pods counts the gateway's pods.
	Pods int32 `json:"pods"`
	// Captured counts those of them whose connections the mesh carries.
	Captured int32 `json:"captured"`
	// Switch is the vendor's own setting that this edge needs, as key=value, or as kind and field=value. Empty: none.
	//
	// +optional
	Switch string `json:"switch,omitempty"`
}

// BackendStatus is a Service that a gateway sends to.
type BackendStatus struct {
	// Service is namespace/name.
	Service string `json:"service"`
	// Waypoint is namespace/name of what stands before it. Empty: none.
	//
	// +optional
	Waypoint string `json:"waypoint,omitempty"`
	// Path is the way that requests take, hop by hop. Empty: the gateways have no pods that could send any, or nothing is told of the Service.
	//
	// +optional
	Path string `json:"path,omitempty"`
	// Policies are the AuthorizationPolicies for it, as namespace/name.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	Policies []string `json:"policies,omitempty"`
	// Held are the findings that hold it back, each as its code and its object, while other backends go on. Empty: none does.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	Held []string `json:"held,omitempty"`
}

// Finding is something that is wrong or worth knowing.
type Finding struct {
	// Code is stable: ISM and three digits.
	Code string `json:"code"`
	// Severity is Error (this edge does not get ready with it), Warning or Info.
	//
	// +kubebuilder:validation:Enum=Error;Warning;Info
	Severity Severity `json:"severity"`
	// Object is what it is about: Kind namespace/name.
	Object string `json:"object"`
	// Field is the field of the object.
	//
	// +optional
	Field string `json:"field,omitempty"`
	// Message says what is the matter and for whom.
	Message string `json:"message"`
	// Fix is what to do.
	//
	// +optional
	Fix string `json:"fix,omitempty"`
}

// Severity orders findings.
type Severity string

// The severities.
const (
	SeverityError   Severity = "Error"
	SeverityWarning Severity = "Warning"
	SeverityInfo    Severity = "Info"
)

// Plan is the list of steps, in order.
type Plan struct {
	// Digest changes when steps do, whatever their state.
	//
	// +optional
	Digest string `json:"digest,omitempty"`
	// Approval is the digest of the approval that the AmbientEdge had when this was found out, as isthmus apply tells it. Empty: it had none.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Approval string `json:"approval,omitempty"`
	// Steps are what is to be done, done or not.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Steps []Step `json:"steps,omitempty"`
	// StepsLeftOut counts steps beyond the 64 that are listed.
	//
	// +optional
	StepsLeftOut int32 `json:"stepsLeftOut,omitempty"`
}

// Step is one thing to do or to wait for.
type Step struct {
	// ID names the step within this edge, the same in every plan.
	ID string `json:"id"`
	// Verb is what is done: Enrol, Roll, Verify, Create, Ask, Await, Pair, Witness, Wire, Confirm, Switch, Lock, Narrow, or Unlock, Unswitch, Unwire, Unpair, Delete, Release, Unenrol.
	Verb string `json:"verb"`
	// Object is what it is done to: Kind namespace/name.
	Object string `json:"object"`
	// State is Done, Next (it is this step's turn), Later (steps before it come first), Held (a finding about its backend says why, and other backends
	// go on) or Blocked (a finding says why).
	State StepState `json:"state"`
	// Reason says what is done, or what is waited for.
	//
	// +optional
	Reason string `json:"reason,omitempty"`
}

// StepState is how far a step is.
type StepState string

// The states.
const (
	StepDone    StepState = "Done"    // it was seen to hold
	StepNext    StepState = "Next"    // it is its turn: it is written now, or waited for
	StepLater   StepState = "Later"   // steps before it come first
	StepBlocked StepState = "Blocked" // a finding says why
	StepHeld    StepState = "Held"    // a finding about its backend, or its waypoint, says why; others go on
	// StepUnknown is in no status: whoever made the plan could not look, and nobody else has told.
	StepUnknown StepState = "Unknown"
)
