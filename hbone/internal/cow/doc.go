// Package cow has a map that is copied when it is written to: a copy costs nothing, readers of one need no lock, and a change copies a few
// nodes only (a compressed hash-array mapped trie).
package cow
