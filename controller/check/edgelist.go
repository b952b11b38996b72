package check

import "slices"

func edgeChecks() []Check {
	return slices.Concat(edgeTokenChecks(), edgeHeaderChecks(), edgeAddressChecks(), edgeLimitChecks(), edgeRequestChecks(), edgeBackendChecks())
}

func reliabilityChecks() []Check {
	return slices.Concat(edgeStatusChecks(), edgeReliabilityChecks(), edgeTwiceChecks(), singleChecks())
}
