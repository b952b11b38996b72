// Package world gives a program a machine of its own without asking for one: new network, mount and process
// namespaces (and a user namespace where the caller is not root), entered by re-executing the program.
//
// Call Enter as the first statement of main or of TestMain. What runs after it is inside: no packet leaves, every
// process started there ends with the program, also after kill -9 of the process that the user sees, and network
// namespaces can be made and entered by anybody.
//
//	func TestMain(m *testing.M) {
//		world.Enter(world.Funcs{"echo": echo})
//		os.Exit(m.Run())
//	}
//
// Go functions run as processes of their own by FuncCommand, so a test needs no second binary. NS is a network
// namespace: Do runs code in it, Start starts a process in it, DialContext and Listen make sockets in it.
//
// A world has no network of the host. Two doors lead out, both through the process outside: HostListen and Publish for
// a listening socket on the host's loopback, HostCommand for a command that needs the host's network, as a
// download does.
//
// Limits: Linux only. Inside, a terminal cannot be read (the program is not in its foreground process group); Ctrl-C
// reaches it once, as SIGINT. Do not set Pdeathsig on processes started inside: threads end at unexpected
// times in Go, and the process namespace ends them all anyway. Where the kernel or a container forbids
// namespaces, Enter says what is missing and what to do; a test binary then skips (exit code 0) unless CI=true.
package world
