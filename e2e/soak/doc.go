// Package soak holds a long test: the story's world under steady load from outside, while backend, gateway, policy, istiod and the
// AmbientEdge itself come and go. Every answer that the event in progress does not explain fails it, and so does growth.
//
//	go test ./soak -run TestSoak -v -args -duration 30m
//
// Without the flag it takes each event once, and sees gross growth only. From five minutes on it follows trends: over the lives of the processes
// in a role, by least squares, with the standard error of what is left; it prints the smallest leak that it would have found. In the second half of a
// long run nothing restarts processes, so that lives are long.
package soak
