// Package kgatewaytest runs a gateway of somebody else's, the real kgateway with its real proxies, as an edge of a whole mesh, looks at what it has programmed and where
// requests go, and tells those stories of package coordination that only it can tell. It has tests only. Those that start kgateway want the flag -kgateway: building it
// takes a quarter of an hour.
package kgatewaytest
