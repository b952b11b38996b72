package policy_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func TestHeaderOfACondition(t *testing.T) {
	for key, want := range map[string]string{
		"request.headers[X-Tenant-Id]": "x-tenant-id", "request.headers[x": "", "request.auth.claims[iss]": "", "source.principal": "",
	} {
		if name, is := policy.HeaderOf(key); name != want || is != (want != "") {
			t.Errorf("%s: %q, %v", key, name, is)
		}
	}
}
