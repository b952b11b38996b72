package coordination

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// stream asks the same again and again on connections that it keeps, and remembers what it got.
type stream struct {
	name string
	request

	mu   sync.Mutex // guards got
	got  []answer
	from int // of got that change has not looked at
}

// flow starts streams, with some callers each, that go on until the function that it returns is called.
func (s *stage) flow(callers int, streams ...*stream) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, st := range streams {
		st.keep = true
		for range callers {
			c := s.client(true)
			wg.Go(func() {
				defer c.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
					a := s.send(c, st.request)
					st.mu.Lock()
					st.got = append(st.got, a)
					st.mu.Unlock()
				}
			})
		}
	}
	return func() {
		close(stop)
		wg.Wait()
	}
}

// change has the answers of streams go from some statuses to others, by what is done to the mesh: each stream gets the old one or the new one, and nothing else, in
// all that time; in the end it gets the new one alone, on the connections that it has kept.
func (s *stage) change(what string, do func(), streams []*stream, old, now []int) {
	s.Helper()
	do()
	began := time.Now()
	const settled = 30 // answers of each stream, on all its connections
	for i, st := range streams {
		s.wait(fmt.Sprintf("%s: %s is answered with %d", what, st.name, now[i]), func() string {
			st.mu.Lock()
			defer st.mu.Unlock()
			since := st.got[st.from:]
			if len(since) < settled {
				return fmt.Sprintf("it got %d answers", len(since))
			}
			for _, a := range since[len(since)-settled:] {
				if a.status != now[i] {
					return fmt.Sprintf("it got %d: %s", a.status, a.text)
				}
			}
			return ""
		})
	}
	took := time.Since(began)
	for i, st := range streams {
		st.mu.Lock()
		seen := st.got[st.from:]
		st.from = len(st.got)
		st.mu.Unlock()
		if at := slices.IndexFunc(seen, func(a answer) bool { return a.status != old[i] && a.status != now[i] }); at >= 0 {
			s.Errorf("%s: %s got %d in place of %d or %d, as answer %d of %d: %s", what, st.name, seen[at].status, old[i], now[i], at, len(seen), seen[at].text)
		}
		s.Logf("%s: %s went from %d to %d, %d answers", what, st.name, old[i], now[i], len(seen))
	}
	s.Logf("%s: in force after %v", what, took.Round(time.Millisecond))
}

// removedUnderTraffic has an issuer, an identity and a policy go while requests come, and sees that exactly those are concerned who should be.
func removedUnderTraffic(s *stage) {
	users, partners := s.newIssuer("users"), s.newIssuer("partners")
	allow := func(ids ...string) string {
		return policyAt("waypoint", "a16", "s16", "action: ALLOW, rules: [{from: [{source: {principals: ["+strings.Join(ids, ", ")+"], requestPrincipals: [\"*\"]}}]}]")
	}
	s.has(tokenRules("edge", "s16", forwarded, users, partners))
	s.has(tokenRules("mesh", "s16", "", users, partners))
	s.has(allow(ingressID, otherID))
	outside, inside := request{by: "ingress", service: "s16"}, request{by: "other", service: "s16"}
	streams := []*stream{
		{name: "a user outside", request: outside.bearing(s.token(users, "acme"))},
		{name: "a partner outside", request: outside.bearing(s.token(partners, "acme"))},
		{name: "a user inside", request: inside.bearing(s.token(users, "acme"))},
		{name: "nobody known outside", request: outside},
	}
	begin := []int{http.StatusOK, http.StatusOK, http.StatusOK, http.StatusForbidden}
	for i, st := range streams {
		s.gets(st.request, begin[i])
	}
	defer s.flow(3, streams...)()
	s.change("traffic", func() {}, streams, begin, begin)

	noPartners := []int{http.StatusOK, http.StatusUnauthorized, http.StatusOK, http.StatusForbidden}
	s.change("an issuer is removed", func() { s.apply(tokenRules("mesh", "s16", "", users)) }, streams, begin, noPartners)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM501", "RequestAuthentication shop/s16", partners.name)

	noEdge := []int{http.StatusForbidden, http.StatusUnauthorized, http.StatusOK, http.StatusForbidden}
	s.change("an identity is removed", func() { s.apply(allow(otherID)) }, streams, noPartners, noEdge)
	s.check.Found(s.T, v1alpha1.SeverityError, "ISM206", "AuthorizationPolicy shop/a16", "Gateway edge/ingress")

	noPolicy := []int{http.StatusOK, http.StatusUnauthorized, http.StatusOK, http.StatusOK}
	s.change("a policy is removed", func() { s.remove(allow(otherID)) }, streams, noEdge, noPolicy)
	s.check.Found(s.T, v1alpha1.SeverityWarning, "ISM237", "RequestAuthentication shop/s16")

	s.change("the policy is there again", func() { s.apply(allow(ingressID, otherID)) }, streams, noPolicy, noPartners)
	s.change("the issuer is there again", func() { s.apply(tokenRules("mesh", "s16", "", users, partners)) }, streams, noPartners, begin)
	s.check.Silent(s.T, "RequestAuthentication shop/s16", "ISM501", "ISM237")
	s.check.Silent(s.T, "AuthorizationPolicy shop/a16", "ISM206")
}
