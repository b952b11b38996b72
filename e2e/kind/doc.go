// Command kind is what demo.sh needs besides the tools that users have. In its images it is the story's programs: the backend, a caller, and
// both gateways, by its first argument. On the user's machine it makes the edge's certificate, reads what objects a cluster has, and says
// later whether they are the same again.
//
// demo.sh tells the story of make demo on a kind cluster of its own: a real kubelet, Istio's own images.
package main
