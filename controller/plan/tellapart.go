package plan

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// Callers are identities between which policies may tell: for each value of a condition on the source one that has it, and a stranger.
func Callers(s *Snapshot, list []*securityv1.AuthorizationPolicy) []spiffeid.ID {
	return (&maker{Snapshot: s}).callers(list)
}

// CallerName names an identity of Callers as policies write it, or says what one stands for that nobody has.
func CallerName(id spiffeid.ID) string {
	ns, account, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
	switch {
	case account != somebody:
		return caller(id)
	case ns != somebody && !strings.Contains(ns, "/"):
		return "who is in namespace " + ns
	}
	return caller(id)
}
