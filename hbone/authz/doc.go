// Package authz decides connections by L4 AuthorizationPolicies as ztunnel enforces them. It is pure: no client, no clock.
package authz
