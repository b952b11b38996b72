// Package apply carries out the writes of a plan: server-side apply under the edge's own field manager and without force, so
// that what others have set is a conflict, and never overwritten.
package apply
