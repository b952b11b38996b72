package accesslog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

func TestRequestsReadsLines(t *testing.T) {
	at := time.Date(2026, 11, 24, 15, 21, 31, 800e6, time.UTC)
	for _, c := range []struct {
		name, log string
		want      []accesslog.Request
	}{
		{"a request that a rule allowed and that went on by HBONE",
			`{"authority":"orders","client":"10.244.1.3:39690","details":"via_upstream","ended":null,"flags":"-","method":"GET","path":"/ok/1","peer":"spiffe://cluster.local/ns/shop/sa/good","policy":"ns[shop]-policy[callers]-rule[2]","status":200,"target":"10.96.4.80:80","tcp_policy":null,"time":"2026-11-24T15:21:31.800Z","tls_peer":null,"upstream":"envoy://connect_originate/10.244.1.2:8080"}` + "\n",
			[]accesslog.Request{{
				Time: at, Method: "GET", Path: "/ok/1", Authority: "orders", Status: 200, Peer: "spiffe://cluster.local/ns/shop/sa/good",
				Client: "10.244.1.3:39690", Target: "10.96.4.80:80", Upstream: "10.244.1.2:8080", HBONE: true,
				Allowed: true, Policy: "shop/callers", Rule: 2, Details: "via_upstream",
			}}},
		{"a request that no rule allowed",
			`{"details":"rbac_access_denied_matched_policy[none]","flags":"-","method":"GET","path":"/x","policy":null,"status":403,"time":"2026-11-24T15:21:31.800Z","upstream":null}` + "\n",
			[]accesslog.Request{{Time: at, Method: "GET", Path: "/x", Status: 403, Details: "rbac_access_denied_matched_policy[none]"}}},
		{"a request that a rule denied",
			`{"details":"rbac_access_denied_matched_policy[ns[shop]-policy[no]-rule[0]]","method":"GET","path":"/x","policy":"ns[shop]-policy[no]-rule[0]","status":403,"time":"2026-11-24T15:21:31.800Z"}` + "\n",
			[]accesslog.Request{{Time: at, Method: "GET", Path: "/x", Status: 403, Policy: "shop/no", Details: "rbac_access_denied_matched_policy[ns[shop]-policy[no]-rule[0]]"}}},
		{"a TCP connection that a rule denied, to a port with mutual TLS",
			`{"ended":"rbac_access_denied_matched_policy[ns[db]-policy[no]-rule[1]]","details":null,"status":0,"tls_peer":"spiffe://cluster.local/ns/a/sa/b","time":"2026-11-24T15:21:31.800Z"}` + "\n",
			[]accesslog.Request{{Time: at, Peer: "spiffe://cluster.local/ns/a/sa/b", Policy: "db/no", Rule: 1, Details: "rbac_access_denied_matched_policy[ns[db]-policy[no]-rule[1]]"}}},
		{"a request that failed upstream, in plaintext",
			`{"details":"upstream_reset","flags":"UF","method":"GET","path":"/","status":503,"time":"2026-11-24T15:21:31.800Z","upstream":"10.0.0.1:80"}` + "\n",
			[]accesslog.Request{{Time: at, Method: "GET", Path: "/", Status: 503, Upstream: "10.0.0.1:80", Allowed: true, Details: "upstream_reset", Flags: "UF"}}},
		{"other lines, other JSON, half a line",
			"2026-11-24 info ready\n{\"level\":\"info\"}\n{broken\n{\"time\":\"yesterday\"}\n" + `{"time":"2026-11-24T15:21:31.800Z","method":"GET"}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, accesslog.Requests(c.log)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzRequests(f *testing.F) {
	f.Add(`{"time":"2026-11-24T15:21:31.800Z","method":"GET","policy":"ns[a]-policy[b]-rule[99999999999999999999]"}` + "\n")
	f.Add("{}\n{\"time\":null}\n")
	f.Fuzz(func(t *testing.T, log string) {
		for _, r := range accesslog.Requests(log) {
			if r.Time.IsZero() {
				t.Errorf("a request without time: %+v", r)
			}
		}
	})
}
