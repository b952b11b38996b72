//go:build !race

package h2_test

// raceEnabled says that the race detector makes everything some ten times slower.
const raceEnabled = false
