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
	ReasonBlocked    = "Blocked"    // a finding of severity Error stands in the way of all
	ReasonWaiting    = "Waiting"    // a step waits for somebody to act, as a finding of severity Warning says; nothing is wrong with the rest
	ReasonHeld       = "Held"       // findings of severity Error hold some backends back, and the others go on
	ReasonConflicted = "Conflicted" // another AmbientEdge has the gateway
	ReasonUndoing    = "Undoing"    // the AmbientEdge is being deleted
	ReasonUndoHalted = "UndoHalted" // and something has to be confirmed first
	ReasonNotWanted  = "NotWanted"  // the spec does not ask for it
)

// Labels and annotations of ours.
const (
	// LabelOwner marks objects that we made: the AmbientEdge as namespace.name, see AmbientEdge.Owner.
	LabelOwner = "isthmus.dev/owner"
	// AnnotationEdges on a Namespace is its consent: a list of namespace/name of AmbientEdges, with commas.
	AnnotationEdges = "isthmus.dev/edges"
	// AnnotationUndo on an AmbientEdge that is being deleted, with value "confirmed", lets undo go on where policies depend on it. One that was there
	// before the deletion does not count, as a manifest may have it for good; "confirmed-" and its uid does, at any time: see
	// AmbientEdge.UndoConfirmation.
	AnnotationUndo = "isthmus.dev/undo"
	// UndoConfirmed is its plain value.
	UndoConfirmed = "confirmed"
	// AnnotationRetry on an AmbientEdge, with any new value, has written again what somebody else has taken back too often.
	AnnotationRetry = "isthmus.dev/retry"
	// AnnotationBegin on an AmbientEdge, with value "confirmed", lets its plan begin though the API server refuses the write of a later step
	// as things are today: it may pass when the steps before are done. If it does not, the plan stops half-way.
	AnnotationBegin = "isthmus.dev/begin"
	// BeginConfirmed is its value.
	BeginConfirmed = "confirmed"
	// AnnotationPlan on an AmbientEdge is the plan that was approved, as isthmus apply writes it: the controller writes nothing that was not in it.
	AnnotationPlan = "isthmus.dev/plan"
	// AnnotationFormer on an object of somebody else holds the values, as JSON by field, that spec.takeOver has replaced.
	AnnotationFormer = "isthmus.dev/former"
	// AnnotationHeirs on a waypoint that we made is a list of namespace/name of AmbientEdges, with commas: they led to it when the one that made it was
	// undone, and the last of them takes it away.
	AnnotationHeirs = "isthmus.dev/heirs"
	// AnnotationRollout on a pod template has its pods started anew.
	AnnotationRollout = "isthmus.dev/rollout"
	// Finalizer keeps an AmbientEdge until all is undone.
	Finalizer = "isthmus.dev/undo"
	// FieldOwnerPrefix comes before namespace.name of an AmbientEdge in the field manager of what is written for it.
	FieldOwnerPrefix = "isthmus.dev/"
	// CommandOwner is the field manager of what isthmus apply writes.
	CommandOwner = "isthmus-cli"
	// KeptOwner is the field manager of values that stay when their AmbientEdge goes with onDelete Keep.
	KeptOwner = "isthmus-kept"
	// RestoreOwner is the field manager of values that are given back.
	RestoreOwner = "isthmus-restore"
)
