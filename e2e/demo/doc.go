// Command demo tells the story of package story on a real control plane:
//
//	go run ./demo        tells it, and leaves nothing behind
//	go run ./demo up     leaves its world running, with relays on 127.0.0.1, and says how to use it
//	go run ./demo exec   runs a command in a pod of that world: demo exec NAMESPACE/NAME COMMAND [ARGUMENT...]
//	go run ./demo down   ends that world
//
// Exit codes: 0 it did what was asked, 1 it failed, 2 it was asked wrongly; those
// of exec are the command's.
package main
