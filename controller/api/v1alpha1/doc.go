// Package v1alpha1 is the API group isthmus.dev: AmbientEdge says that a gateway is an edge of an Istio ambient mesh.
//
// An empty field means its first value; nothing is defaulted in the cluster, so that a later version may choose better.
// The CustomResourceDefinition and the deep copies are generated from this package: go generate ./...
//
// +kubebuilder:object:generate=true
// +groupName=isthmus.dev
package v1alpha1

//go:generate go tool -modfile=../../../.ci/generate.mod controller-gen object crd:headerFile= paths=. output:crd:dir=../../../manifests/crd
//go:generate go test -run TestReferences . -update
