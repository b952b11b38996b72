package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// An identity from the files that a cert-manager certificate is mounted as.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "identity")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	ca := identitytest.NewCA(gateway.TrustDomain())
	svid := ca.SVID(gateway)
	for name, data := range map[string][]byte{
		"tls.crt": identitytest.PEM(svid.Certificates...),
		"tls.key": identitytest.KeyPEM(svid.PrivateKey),
		"ca.crt":  identitytest.PEM(ca.Root),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}

	id, err := file.New(context.Background(), file.Config{
		Chain: filepath.Join(dir, "tls.crt"),
		Key:   filepath.Join(dir, "tls.key"),
		Roots: filepath.Join(dir, "ca.crt"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer id.Close()

	shown, err := id.GetX509SVID()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(shown.ID)
	// Output: spiffe://cluster.local/ns/edge/sa/gateway
}
