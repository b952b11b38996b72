// Package wan is a delay line in user space: a relay for TCP connections on one machine that gives bytes to the other side a
// while after they came, as a long path does.
//
//	line := &wan.Line{Target: "127.0.0.1:15008", OneWay: 25 * time.Millisecond}
//	go line.Serve(listener)
//
// A half-close and a reset arrive as late as bytes do. What is under way in one direction is bounded by InFlight, which thus stands
// for the TCP buffers of such a path; TCP itself sees two short paths. So the line measures what a protocol above TCP adds, such as
// its windows and its round trips, and not how a kernel fills a long path.
//
// On Linux bytes pass through pipes, without being copied, so that the line leaves the processors to those who are measured.
//
// Limits: no loss, no jitter, no bound of the rate but the machine's own. It is for tests and benchmarks.
package wan
