package v1alpha1

// Codes of findings. They are stable: a code never gets another meaning.
const (
	FindingNoTarget        = "ISM300" // the gateway is not there
	FindingNoConsent       = "ISM302" // another namespace has not consented
	FindingForeignValue    = "ISM303" // somebody else has set a field that we would write
	FindingConflictedEdge  = "ISM304" // an AmbientEdge that comes first has the gateway
	FindingHostNetwork     = "ISM305" // a pod cannot be captured
	FindingSidecar         = "ISM306" // a pod has a sidecar
	FindingUndoHalted      = "ISM307" // policies depend on what undo would take away
	FindingBackendOutside  = "ISM308" // the pods of a backend are not in the mesh
	FindingRefused         = "ISM309" // the API server does not let the controller write
	FindingFight           = "ISM310" // somebody else takes back what the controller writes
	FindingNoSwitch        = "ISM320" // the gateway sends past waypoints, and has no switch that fits
	FindingSwitchIdle      = "ISM321" // the switch would do nothing: a setting, a version or a mode is missing
	FindingHeadless        = "ISM322" // a backend has no address of its own
	FindingLoss            = "ISM323" // the switch takes a feature away that is in use
	FindingVendor          = "ISM324" // what everybody should know of this kind of gateway
	FindingShared          = "ISM325" // the gateway's pods serve others too, or are elsewhere
	FindingLate            = "ISM326" // a pod was captured after it had connected, and has not noticed
	FindingRefusesOutside  = "ISM327" // STRICT would refuse the gateway's own clients
	FindingController      = "ISM328" // a controller is named where its gateway is meant
	FindingOverridden      = "ISM329" // a setting of somebody else wins over the switch
	FindingRollout         = "ISM330" // a rollout takes more than one pod at a time
	FindingRejected        = "ISM331" // the gateway does not accept what carries the switch
	FindingNoClass         = "ISM332" // the GatewayClass of a gateway is not there
	FindingBroughtIn       = "ISM333" // other pods came into a namespace that is labelled for a gateway
	FindingEarlier         = "ISM334" // a gateway's pods may have connections from before
	FindingObserver        = "ISM335" // an edge is to be managed, and its controller only observes
	FindingUnable          = "ISM336" // the controller has no identity to ask waypoints with
	FindingNotLocked       = "ISM337" // a Service's pods cannot be locked, or cannot yet
	FindingPair            = "ISM338" // what Pair does for a Service, or cannot do
	FindingDNSCaptured     = "ISM339" // a gateway sends to a DNS server, and ztunnel answers in place of it
	FindingOutsideMesh     = "ISM340" // a gateway is kept outside the mesh, and waypoints are asked for
	FindingAssumed         = "ISM341" // that a gateway speaks HBONE is assumed
	FindingOptedOut        = "ISM342" // pods of a gateway are labelled to stay outside
	FindingNoPods          = "ISM343" // a gateway has no pods, as none are asked for
	FindingUnfollowed      = "ISM344" // a route sends to what is not followed to a Service
	FindingNoRoute         = "ISM345" // no route names a gateway
	FindingPlanChanged     = "ISM346" // what is to be written is not in the plan that was approved
	FindingNoSelector      = "ISM347" // which pods serve a Service is not known
	FindingCanary          = "ISM348" // a canary waypoint takes no part
	FindingHidden          = "ISM349" // what a plan depends on may not be read
	FindingUnenforced      = "ISM201" // a policy is enforced by nobody
	FindingVoided          = "ISM205" // a waypoint voids a policy at pods
	FindingNotAdmitted     = "ISM206" // policies refuse all that a gateway sends
	FindingPathChange      = "ISM207" // a policy ends for a Service that is to be led to another waypoint
	FindingBegins          = "ISM209" // policies begin to be enforced by the wiring, for others than the gateway too
	FindingHandedOver      = "ISM208" // what another AmbientEdge uses too is left to it
	FindingNoBackend       = "ISM101" // a backend is not there
	FindingNoWaypoint      = "ISM102" // no waypoint is there to use
	FindingWaypointSilent  = "ISM103" // a waypoint does not answer
	FindingRouteNotCounted = "ISM104" // a route does not count, as the gateway has not accepted it
	FindingRouteKind       = "ISM105" // a route is of UDP, which the mesh does not carry
	FindingTokenTaken      = "ISM500" // a gateway takes away the token that policies at a waypoint ask for
)
