// Package route turns an address and what is known of the mesh into hops. It is pure: no client, no clock.
package route
