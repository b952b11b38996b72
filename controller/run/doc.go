// Package run is the controller: one reconciler for AmbientEdges that observes, plans, applies and reports. Setup puts it into a
// controller-runtime manager; Observe is shared with the command line, which plans without writing.
package run
