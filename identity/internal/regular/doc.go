// Package regular reads files that must be regular ones, of bounded size: nobody waits for a pipe that nobody writes to, and nothing is read that has no end.
package regular
