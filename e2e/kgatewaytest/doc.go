// Package kgatewaytest runs a gateway of somebody else's, the real kgateway with its real proxies, as an edge of a whole mesh, and looks at what
// it has programmed and where requests go. It has tests only. Those that start kgateway want the flag -kgateway: building it takes a quarter of
// an hour.
package kgatewaytest
