// Package file reads an identity from files: a certificate chain, its key and the roots, as cert-manager's csi-driver-spiffe, istio-csr and
// mounted Secrets bring them.
//
//	id, err := file.New(ctx, file.Config{
//		Chain: "/var/run/secrets/spiffe.io/tls.crt",
//		Key:   "/var/run/secrets/spiffe.io/tls.key",
//		Roots: "/var/run/secrets/spiffe.io/ca.crt",
//	})
//
// It follows changes: files written over, renamed over, and the symbolic links that Kubernetes swaps under a mount. What the kernel does not
// tell of is found by looking once a minute. While the files do not fit together, as in the middle of a replacement, it keeps the last good
// pair, and Stats of the Source have the error.
//
// Cancellation: New reads the files once and does not wait for better ones; the Source lives until Close, which ends the watch.
//
// Limits: PEM, at most 4 MiB a file, unencrypted keys. Roots are for the certificate's own trust domain; Config.Trust names others.
package file
