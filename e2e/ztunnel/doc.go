// Package ztunnel runs a real ztunnel that the user has, by itself: its certificates come from an authority in this process, its mesh out of
// a file, and it shares the caller's network namespace. So tests and benchmarks have it as the peer of one connection; package capture
// starts it for the pods of a whole mesh.
//
//	z, err := ztunnel.Serve(ctx, ztunnel.Config{Program: os.Getenv(ztunnel.Env), CA: ca})
//	...
//	defer z.Close()
//	// HBONE at ztunnel.Inbound, to any port of 127.0.0.1
//
// Limits: ztunnel's ports are fixed, so there is one at a time, and Serve and Dial say so when another process has them. Linux only.
package ztunnel
