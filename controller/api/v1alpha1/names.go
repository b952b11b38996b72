package v1alpha1

// Types of conditions.
const (
	// ConditionReady: every step of the plan is done, and was seen to hold.
	ConditionReady = "Ready"
	// ConditionEnrolled: every pod of the gateways is captured by the mesh, or speaks HBONE itself.
	ConditionEnrolled = "Enrolled"
	// ConditionWaypointsReady: every waypoint that was asked for answers, and its Services lead to it.
	ConditionWaypointsReady = "WaypointsReady"
)

// Reasons of conditions.
const (
	ReasonDone       = "Done"       // it holds
	ReasonInProgress = "InProgress" // steps are on their way
	ReasonObserving  = "Observing"  // mode Observe: steps are left that nobody takes
	ReasonBlocked    = "Blocked"    // a finding of severity Error stands in the way
	ReasonConflicted = "Conflicted" // another AmbientEdge has the gateway
	ReasonUndoing    = "Undoing"    // the AmbientEdge is being deleted
	ReasonUndoHalted = "UndoHalted" // and something has to be confirmed first
	ReasonNotWanted  = "NotWanted"  // the spec does not ask for it
)

// Codes of findings.
const (
	FindingNoTarget        = "ISM300" // the gateway is not there
	FindingNoPods          = "ISM301" // the gateway has no pods
	FindingNoConsent       = "ISM302" // another namespace has not consented
	FindingForeignValue    = "ISM303" // somebody else has set a field that we would write
	FindingConflictedEdge  = "ISM304" // an older AmbientEdge has the gateway
	FindingHostNetwork     = "ISM305" // a pod cannot be captured
	FindingSidecar         = "ISM306" // a pod has a sidecar
	FindingUndoHalted      = "ISM307" // policies depend on what undo would take away
	FindingBackendOutside  = "ISM308" // the pods of a backend are not in the mesh
	FindingUnenforced      = "ISM201" // a policy is enforced by nobody
	FindingNoBackend       = "ISM101" // a backend is not there
	FindingNoWaypoint      = "ISM102" // no waypoint is there to use
	FindingWaypointSilent  = "ISM103" // a waypoint does not answer
	FindingRouteNotCounted = "ISM104" // a route does not count, as the gateway has not accepted it
)

// Labels and annotations of ours.
const (
	// LabelOwner marks objects that we made: the AmbientEdge as namespace.name.
	LabelOwner = "isthmus.dev/owner"
	// AnnotationEdges on a Namespace is its consent: a list of namespace/name of AmbientEdges, with commas.
	AnnotationEdges = "isthmus.dev/edges"
	// AnnotationUndo on an AmbientEdge, with value "confirmed", lets undo go on where policies depend on it.
	AnnotationUndo = "isthmus.dev/undo"
	// UndoConfirmed is its value.
	UndoConfirmed = "confirmed"
	// Finalizer keeps an AmbientEdge until all is undone.
	Finalizer = "isthmus.dev/undo"
	// FieldOwnerPrefix comes before namespace.name of an AmbientEdge in the field manager of what is written for it.
	FieldOwnerPrefix = "isthmus.dev/"
)
