// Package story is what Isthmus is for, told on a real control plane: an edge gateway outside the mesh, the AmbientEdge that
// brings it in, a policy that decides by its identity, an impostor, and the way back.
//
// Start brings up the world; each method of World is a scene that acts, and returns what was seen. Tell plays them in
// order for people, and a test plays them and judges. It works only inside a world (Funcs for world.Enter). A machine without
// Envoy has no waypoint: the policies are then of layer 4, decided at the backend. On one without nftables nobody refuses plaintext: the scene
// of STRICT then shows that.
package story
