// Command demo tells the story of package story on a real control plane:
//
//	go run ./demo        tells it, and leaves nothing behind
//	go run ./demo up     leaves its world running, with relays on 127.0.0.1, and says how to use it
//	go run ./demo down   ends that world
//
// Exit codes: 0 it did what was asked, 1 it failed, 2 it was asked wrongly.
package main
