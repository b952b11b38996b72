// Package policytest holds tests of controller/policy against those who enforce: what a real istiod makes of random policies for ztunnel, and how
// a real waypoint decides random requests. A short batch runs with the other tests; -args -rounds N is a long one.
package policytest
