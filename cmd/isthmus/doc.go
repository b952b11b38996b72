// Command isthmus joins edge gateways to an Istio ambient mesh: it runs the controller, shows what the controller would do, and dials through
// HBONE to see what a gateway would see.
//
// Data goes to standard output, talk to standard error. It ends with 0 when it did what was asked, 1 when that failed, and 2 when it was
// asked wrongly.
//
// Cancellation: SIGINT and SIGTERM end every command in order; a second one ends it at once.
//
// Limits: it reads a cluster with the rights of the kubeconfig and writes to it only as "isthmus controller".
package main
