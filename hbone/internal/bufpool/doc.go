// Package bufpool lends buffers in a few sizes, so that bytes on their way through cost no allocation.
//
// Who gets a buffer gives it back with Free, once; a buffer that is not given back is garbage and nothing worse. Track counts what is out,
// for tests that must not lose any.
package bufpool
