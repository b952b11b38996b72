// Package file reads an identity from files: a certificate chain, its key and the roots, as cert-manager's csi-driver-spiffe, istio-csr and
// mounted Secrets bring them. It follows changes, also the symbolic links that Kubernetes swaps under a mount, and keeps the
// last good pair while files do not fit together.
package file
