package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// notForTunnels are the cases of h2spec that ask for something that a server of CONNECT tunnels does not do, with the reason.
var notForTunnels = map[string]string{
	"generic/2/2":     noBody,
	"generic/2/3":     noBody,
	"http2/4.2/3":     "it assumes frames of 16 KiB; the Server announces 1 MiB as ztunnel does, and refuses more (own test: 4.2 HEADERS beyond MAX_FRAME_SIZE)",
	"http2/5.1.2/1":   racy + "a refused request ends at once, so that never too many are open (own test: 5.1.2 ServerRefusesBeyondItsLimit)",
	"http2/5.3.1/1":   priorities,
	"http2/5.3.1/2":   priorities,
	"http2/6.5.3/1":   noBody + " (own test: 6.9.2 WindowsMayBecomeNegative)",
	"http2/6.9.1/1":   noBody + " (own test: 6.9.1 SenderObeysTheStreamsWindow)",
	"http2/6.9.2/1":   noBody + " (own test: 6.9.2 WindowsMayBecomeNegative)",
	"http2/6.9.2/2":   noBody + " (own test: 6.9.2 WindowsMayBecomeNegative)",
	"http2/8.1/1":     racy + "a GET is refused, and ended, before or after its second HEADERS come (own test: 8.1 trailers without END_STREAM)",
	"http2/8.1.2.6/1": length,
	"http2/8.1.2.6/2": length,
}

const (
	racy       = "depends on who is quicker: "
	noBody     = "it wants an answer with a body to a GET; the Server refuses what is not CONNECT with 400 and no body"
	priorities = "RFC 9113, section 5.3.2, has done away with priorities and with this error"
	length     = "a GET is refused with 400 before its DATA come, and a CONNECT has no content (RFC 9110, section 9.3.6)"
)

var td = spiffeid.RequireTrustDomainFromString("cluster.local")

func sa(namespace, name string) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/ns/"+namespace+"/sa/"+name)
}

// TestH2Spec runs every case of h2spec, the strict ones too, against a Server over TLS.
func TestH2Spec(t *testing.T) {
	ca := identitytest.NewCA(td)
	server := &hbone.Server{Identity: ca.Source(sa("shop", "orders"))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	cert, key := keyFiles(t, ca, sa("edge", "gateway"))
	c := &config.Config{
		Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000,
		Strict: true, TLS: true, Insecure: true, CertFile: cert, CertKeyFile: key,
	}
	seen := map[string]bool{}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		runGroup(t, c, group, seen)
	}
	for id := range notForTunnels {
		if !seen[id] {
			t.Errorf("h2spec has no case %s", id)
		}
	}
}

func runGroup(t *testing.T, c *config.Config, group *spec.TestGroup, seen map[string]bool) {
	for i, tc := range append(group.Tests, group.StrictTests...) {
		id := fmt.Sprintf("%s/%d", group.ID(), i+1)
		seen[id] = true
		t.Run(id+" "+tc.Desc, func(t *testing.T) {
			reason, excused := notForTunnels[id]
			// The Server refuses h2spec's GETs at once, so a case that needs an open stream may come too late: it gets three attempts. The
			// engine's own tests hold the stream open and have one.
			var err error
			for range 3 {
				if err = attempt(c, tc); err == nil || excused {
					break
				}
			}
			switch {
			case err == nil && excused && !strings.HasPrefix(reason, racy):
				t.Errorf("it passes; take it off the list (%s)", reason)
			case err != nil && excused:
				t.Logf("excused: %s", reason)
			case err != nil:
				t.Errorf("%s: %v", tc.Requirement, err)
			}
		})
	}
	for _, g := range group.Groups {
		runGroup(t, c, g, seen)
	}
}

func attempt(c *config.Config, tc *spec.TestCase) error {
	conn, err := spec.Dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	return tc.Run(c, conn)
}

// keyFiles writes a certificate chain and its key, as programs want them.
func keyFiles(t *testing.T, ca *identitytest.CA, id spiffeid.ID) (cert, key string) {
	t.Helper()
	svid := ca.SVID(id)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, content := range map[string][]byte{cert: identitytest.PEM(svid.Certificates...), key: identitytest.KeyPEM(svid.PrivateKey)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
