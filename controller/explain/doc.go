// Package explain says who may call what, hop by hop, and why: by the objects of a check.World, with the evaluator of package policy. It is pure: no
// client, no clock.
//
//	a, err := explain.From(world, explain.Question{From: from, To: to})
//	explain.Draw(os.Stdout, &a, 0, nil)
//
// An Answer has a Way for each way that requests may take: some pods of a gateway may be in the mesh and some not, a gateway may send to a Service's
// address or to pods, nobody may know which, and pods of one Service may be under different policies. Each Way is a row of hops with what carries it, who
// is seen at its end, who enforces something there, and what. Allow and Deny hold for every request that the question leaves open; Depends says on what.
//
// Limits: what a gateway itself asks of requests, by the policies of its vendor, is not looked at, nor are NetworkPolicies, ServiceEntries and other
// clusters. What a sidecar decides is Depends.
package explain
