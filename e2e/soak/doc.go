// Package soak holds a long test: the story's world under steady load from outside, while backend, gateway, policy, istiod and the
// AmbientEdge itself come and go. Every answer that the event in progress does not explain fails it, and so does growth.
//
//	go test ./soak -run TestSoak -v -args -duration 30m
//
// Without the flag it takes each event once.
package soak
