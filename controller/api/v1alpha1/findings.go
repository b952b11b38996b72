package v1alpha1

// Codes of findings. They are stable: a code never gets another meaning.
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
	FindingRefused         = "ISM309" // the API server does not let the controller write
	FindingUnenforced      = "ISM201" // a policy is enforced by nobody
	FindingNoBackend       = "ISM101" // a backend is not there
	FindingNoWaypoint      = "ISM102" // no waypoint is there to use
	FindingWaypointSilent  = "ISM103" // a waypoint does not answer
	FindingRouteNotCounted = "ISM104" // a route does not count, as the gateway has not accepted it
)
