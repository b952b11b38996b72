// Package accesslog makes Envoy log what a test wants to know of each request, and reads it back.
//
// Format is the part of a mesh configuration, Requests the parser. It is a package of its own so that its fuzzing compiles little.
package accesslog
