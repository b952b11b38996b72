package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTheCertificateIsTheOneThatCustomersTrust(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), "certificate", []string{"gateway.edge.svc", "other.edge.svc"}, &out); err != nil {
		t.Fatal(err)
	}
	var secret corev1.Secret
	var trusted corev1.ConfigMap
	in := json.NewDecoder(&out)
	if err := in.Decode(&secret); err != nil {
		t.Fatal(err)
	}
	if err := in.Decode(&trusted); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"gateway.edge.svc", "other.edge.svc"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if trusted.Data["tls.crt"] != string(secret.Data["tls.crt"]) {
		t.Error("customers trust another one")
	}
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	for _, args := range [][]string{{"certificate"}, {"read", "x"}, {"same"}, {"emacs"}} {
		if err := run(t.Context(), args[0], args[1:], &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "is not known") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
