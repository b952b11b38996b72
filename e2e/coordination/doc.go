// Package coordination tells the stories of edges and meshes that contradict each other, on a real control plane, with a real waypoint and real
// gateways: what goes wrong is seen in requests first, isthmus check has to find it, isthmus plan or the finding has to show the mend, and requests
// have to show that it is one. It has tests only. That a switch under traffic changes nobody's answer is controllertest's story, and what only a gateway of
// somebody else's does is kgatewaytest's.
package coordination
