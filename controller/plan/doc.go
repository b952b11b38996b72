// Package plan decides what is to be done for an AmbientEdge. It is pure: a Snapshot of the cluster goes in, and a Plan comes out,
// with ordered steps, findings, and what is known of gateways and backends. There is no client and no clock here, so that the
// controller, the command isthmus plan and tests see the same plan.
//
// The order is what keeps traffic safe: pods are enrolled and seen to be captured, a waypoint is made and seen to answer, and
// only then does a Service lead to it. Undo goes the other way round.
//
// An AmbientEdge joins one gateway to the backends of many owners, and what is wrong with one is not to stop the others. An error that is about a backend,
// or about its waypoint, holds its steps back (Held), and what depends on them: no other backend waits for these. An error that is about a gateway, or about
// the edge itself, stops all writing (Blocked), and so does one whose cause is that the next step for all would make things worse for one: enrolment gives
// the gateway an identity before every backend at once, and waits where that would cut one off. Where every backend is held back, nothing is begun. See
// holdings, Plan.Hold, and after, which says what waits for what.
package plan
