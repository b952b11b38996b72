//go:build race

package main

// raceEnabled says that everything takes several times as much of a processor.
const raceEnabled = true
