// Package identity holds who a workload is: its SVID and the bundles it trusts, kept fresh.
//
// A Source is what packages istioca and file return, and what hbone takes as an Identity. It implements go-spiffe's
// x509svid.Source and x509bundle.Source. It renews in the background, keeps the old SVID until that expires while its authority
// is away, and fails closed afterwards with an error that names the cause.
//
// Cancellation: constructors block for the first SVID and obey their context; a Source then lives until Close.
//
// Limits: X.509 SVIDs only. Keys stay in memory and are never logged.
package identity
