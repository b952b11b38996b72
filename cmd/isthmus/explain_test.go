package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

func TestAShortNameIsToldInFull(t *testing.T) {
	for target, want := range map[string]string{
		"orders.shop:80":                        "if a Service is meant, write orders.shop.svc.cluster.local:80; check name",
		"orders.shop.svc:80":                    "if a Service is meant, write orders.shop.svc.cluster.local:80; check name",
		"orders:80":                             "if a Service is meant, write orders.NAMESPACE.svc.cluster.local:80; check name",
		"example.com:80":                        "if a Service is meant, write example.com.svc.cluster.local:80; check name",
		"10.0.0.1:80":                           "check name and namespace",
		"nobody.shop.svc.cluster.local:80":      "check name and namespace",
		"orders.shop.example.com:80":            "check name and namespace",
		"nobody.shop.svc.another.cluster.es:80": "check name and namespace",
	} {
		err := explainResolve(target, &meshFlags{}, &route.Error{Why: "istiod knows no Service of that name in namespace edge"})
		next := detail(err).Next
		if !strings.Contains(next, want) || strings.Contains(next, "write ") != strings.Contains(want, "write ") {
			t.Errorf("%s: next is %q, want %q", target, next, want)
		}
	}
}

func TestEveryWayThatIsNotThereHasANext(t *testing.T) {
	for target, want := range map[string]string{"orders:80": "orders.NAMESPACE.svc.cluster.local:80", "10.0.0.1:80": "kubectl get services -A"} {
		if next := detail(explainResolve(target, &meshFlags{}, &route.Error{Why: "something new"})).Next; !strings.Contains(next, want) {
			t.Errorf("%s: next is %q, want %q", target, next, want)
		}
	}
}

func TestACertificateOfAnotherMachineIsNoIstiod(t *testing.T) {
	for names, want := range map[string]string{"istiod.istio-system.svc": "--istiod-name is x", "registry.example, mail.example": "somebody else answers there"} {
		err := party{name: "x", flag: "--istiod", nameFlag: "--istiod-name"}.explain("no", &meshFlags{}, errors.New("tls: x509: certificate is valid for "+names+", not x"))
		if next := detail(err).Next; !strings.Contains(next, want) || strings.Contains(next, "--istiod-name") != strings.Contains(want, "--istiod-name") {
			t.Errorf("%s: next is %q, want %q", names, next, want)
		}
	}
}
