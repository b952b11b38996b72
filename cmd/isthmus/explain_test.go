package main

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

func TestAShortNameIsToldInFull(t *testing.T) {
	for target, want := range map[string]string{
		"orders.shop:80":                        "write orders.shop.svc.cluster.local:80, or check name",
		"orders.shop.svc:80":                    "write orders.shop.svc.cluster.local:80, or check name",
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
