// Package meshtest starts meshes for tests: New ends the mesh with the test, and keeps its folder when the test has failed.
// A mesh takes seconds to start and 600 MB, so a package's tests better share one; see mesh.Start for that.
// The test's context ends before the mesh does. It works only inside a world (mesh.Funcs).
package meshtest
