// Package plan decides what is to be done for an AmbientEdge. It is pure: a Snapshot of the cluster goes in, and a Plan comes out,
// with ordered steps, findings, and what is known of gateways and backends. There is no client and no clock here, so that the
// controller, the command isthmus plan and tests see the same plan.
//
// The order is what keeps traffic safe: pods are enrolled and seen to be captured, a waypoint is made and seen to answer, and
// only then does a Service lead to it. Undo goes the other way round. An error among the findings stops all writing.
package plan
