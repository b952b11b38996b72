package check

import "slices"

// pathChecks are about the way from a gateway to pods: ISM1xx, and what plans say of it.
func pathChecks() []Check {
	return slices.Concat(waypointChecks(), bypassChecks(), labelChecks(), policyRefChecks(), routeChecks(), edgeSwitchChecks(), toldChecks(), faultChecks(), vipChecks(), edgeNameChecks())
}

// enrolmentChecks are about who is in the mesh: ISM3xx.
func enrolmentChecks() []Check { return slices.Concat(enrolledChecks(), captureChecks()) }
