// Package programmed tells from what a gateway shows of itself where it sends to for a Service: to the Service's address, by which its waypoint is chosen,
// or to its pods, past every waypoint.
//
//	d, err := programmed.Read(body)  // Envoy's /config_dump?include_eds or /clusters, kgateway's /snapshots/xds, Traefik's /api/rawdata
//	ways, err := d.Ways(vendor.Clusters, services)
//
// That a gateway's controller has accepted a setting says nothing about this. The package asks nobody: who has the text hands it over. Dumps hold keys and
// tokens; nothing is kept of a text but names of clusters and the addresses that they lead to, and no error quotes it.
//
// Texts are outside bytes: Read holds one value of it at a time, and its limits stand at the constants.
package programmed
