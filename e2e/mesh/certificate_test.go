package mesh_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	securityapi "istio.io/api/security/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// certificate gets a certificate from istiod with a service account's token, as any workload does.
func certificate(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	sa := &corev1.ServiceAccount{}
	sa.Name, sa.Namespace = "edge", "default"
	if err := m.Client().Create(t.Context(), sa); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	if err := m.Client().SubResource("token").Create(t.Context(), sa, token); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(m.RootPEM) {
		t.Fatal("RootPEM has no certificate")
	}
	conn, err := grpc.NewClient("passthrough:///"+m.Istiod.CA.String(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: m.Istiod.ServerName})),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return m.NS.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) (*securityapi.IstioCertificateResponse, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token, "clusterid", "Kubernetes")
		return securityapi.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &securityapi.IstioCertificateRequest{
			Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
			ValidityDuration: 3600,
		})
	}
	begin := time.Now()
	res, err := ask(token.Status.Token)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("certificate after %v", time.Since(begin).Round(time.Millisecond))
	block, _ := pem.Decode([]byte(res.CertChain[0]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://cluster.local/ns/default/sa/edge" {
		t.Errorf("identity: got %v", cert.URIs)
	}
	if _, err := ask("wrong"); err == nil {
		t.Error("a wrong token: no error")
	}
}
