// Package wds asks istiod where addresses lead (the workload discovery service, over delta ADS) and which L4 policies guard a workload.
//
// A Client is an hbone.Resolver: it asks for what is dialled and holds nothing else, or, with Config.Wildcard, for all there is. While istiod is
// away it answers from what it holds, and with Config.SnapshotFile also after a restart; Stats says how old that is. An Authorizer
// decides for a server in front of one workload.
//
//	mesh, err := wds.New(wds.Config{Addresses: []string{"istiod.istio-system.svc:15012"}, RootsFile: roots, TokenFile: token, Node: node})
//
// New does not block; Resolve blocks until istiod has answered or its context ends. Of what is known it answers at once: it takes no lock and
// allocates nothing. Close ends everything.
//
// An hbone.Dialer asks the Client by itself which of its tunnels still go the right way when something has changed; see hbone.Dialer.Drain.
//
// What cannot be read keeps its old value. A policy that never could be read and that may apply denies, unless the Authorizer is Lenient.
// Package wdstest is an istiod for tests.
//
// The package decodes the messages itself and registers no istio.* protobuf names, so that it can live in one program with Istio's packages.
//
// Limits: at most MaxNames names are asked for; when they are full those that led nowhere go, and what nobody dials is given up after UnusedFor.
// MaxResources bounds what istiod can make us hold, in number and in bytes. A message of more than MaxMessage (64 MiB) is not taken: it ends the connection, what is held
// stays, and on the next connections the names it may have been for are asked for in groups, ever smaller ones, until it is known whose it is. That one
// leads nowhere, or where it led before, until it is asked for again: after 30 s, then after twice as long, up to 8 min. Likewise the policies as a whole
// keep their old value. A Client with Wildcard to whom all there is is too much asks for what is dialled meanwhile (Stats.Narrowed).
//
// An address that is known because of something else is asked for all the same when it is dialled first: others may have it too. While istiod is away what is held
// is what there is.
//
// Without Config.Wildcard a name that is no Service's full name is that of the Node's namespace; one of another is dialled as namespace/name, whatever else was
// dialled before. Istiod is asked for addresses as they are dialled, and names one Service for each: ranges of addresses, and who else shares a VIP, are known of
// what was dialled by name or came with it. Who needs them needs Wildcard.
//
// Istiod tells a client that asks on demand nothing of new pods, so that those of a Service are known after
// RefreshEvery, or within a second when a known pod goes.
package wds
