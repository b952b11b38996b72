// Package manifests holds what a cluster needs for the controller: the CRD, its namespace, roles, admission policies and Deployment, as YAML files
// that kustomize takes as they are, and that Install gives to programs.
//
// The ClusterRoles and the CRD are generated from the code (go generate); a test fails when they are stale. The image's name is one for kustomize's images
// field to replace.
//
// Limits: nothing here talks to a cluster, so there is nothing to cancel.
package manifests
