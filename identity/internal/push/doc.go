// Package push is the half of an identity.Fetcher whose authority pushes: it keeps what came last, or why nothing comes.
package push
