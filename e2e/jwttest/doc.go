// Package jwttest makes keys, and the tokens that are signed with them, for tests of those who ask for tokens. What it makes is ES256 (RFC 7515,
// RFC 7517, RFC 7518). It fails by an error, so that what is not a test may use it too.
package jwttest
