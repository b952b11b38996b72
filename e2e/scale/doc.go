// Package scale measures the controller on a real API server with many AmbientEdges and Services: how long until all are ready, how
// long until a change has its effect, also while a hundred other objects a second change, what it writes at rest (nothing), and what it needs.
//
//	go test ./scale -run TestScale -v -args -edges 50 -namespaces 1000 -services 5000 -churn 1m
//
// What others do is played: gateways are captured, waypoints are programmed and answer at once, and Services are bound as soon as they are
// labelled. So the times are the controller's and the API server's alone.
package scale
