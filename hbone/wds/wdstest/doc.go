// Package wdstest is an istiod for tests of what uses package wds: it serves workloads, Services and policies over delta ADS and TLS, in
// the test's process.
//
//	istiod := wdstest.New(t)
//	istiod.SetService(&route.Service{...})
//	mesh, err := wds.New(wds.Config{Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Node: node})
//
// It answers on demand as istiod does: with the Service that was asked for and its endpoints, with a removal for a name that nobody
// has, and not at all to a request that changes no subscription. It records what clients send.
package wdstest
