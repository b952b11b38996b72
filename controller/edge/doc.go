// Package edge knows gateways: how each vendor's pods are found, how they come into the mesh, and which switch makes them send
// to a Service's waypoint instead of to its pods. It is data; a vendor is a file that returns a Vendor, and a line in Vendors.
package edge

//go:generate go test -run TestReferenceIsCurrent . -update
