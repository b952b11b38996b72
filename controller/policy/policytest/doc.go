// Package policytest makes random policies for tests: of few words, so that requests meet them.
package policytest
