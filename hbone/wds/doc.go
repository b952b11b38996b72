// Package wds asks istiod where addresses lead (the workload discovery service, over delta ADS) and which L4 policies guard a workload.
//
// A Client is an hbone.Resolver: it asks for what is dialled and holds nothing else. While istiod is away it answers from what
// it holds. An Authorizer decides for a server in front of one workload.
//
//	mesh, err := wds.New(wds.Config{Addresses: []string{"istiod.istio-system.svc:15012"}, RootsFile: roots, TokenFile: token, Node: node})
//
// New does not block; Resolve blocks until istiod has answered or its context ends. Close ends everything.
//
// What cannot be read keeps its old value. A policy that never could be read and that may apply denies, unless the Authorizer is Lenient.
// Package wdstest is an istiod for tests.
//
// The package decodes the messages itself and registers no istio.* protobuf names, so that it can live in one program with Istio's packages.
//
// Limits: names asked for are kept until Close, at most MaxNames of them; when they are full those that led nowhere go.
package wds
