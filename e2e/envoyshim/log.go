package envoyshim

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Request is a line of Envoy's access log.
type Request struct {
	Time                    time.Time
	Method, Path, Authority string
	// Peer is the SPIFFE id that the caller showed, as far as Envoy was asked to know it.
	Peer     string
	Status   int
	Upstream string // ip:port; "" when it went nowhere
	// Allowed and Policy are what authorization decided. Policy is namespace/name of what matched, "" when nothing did or nothing
	// was asked. Envoy tells which policy allowed a request in a line of its own before this one: with several requests
	// at a time it may be another's.
	Allowed bool
	Policy  string
	Details string
}

var (
	matched = regexp.MustCompile(`enforced (allowed|denied), matched policy ([^\s,]+)`)
	policy  = regexp.MustCompile(`ns\[([^\]]*)\]-policy\[([^\]]*)\]`)
)

// Requests reads an Envoy's log: the lines that MeshConfig's format makes, and what it says of policies.
func Requests(log string) []Request {
	var list []Request
	decided := ""
	for line := range strings.Lines(log) {
		if m := matched.FindStringSubmatch(line); m != nil {
			decided = m[2]
			continue
		}
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var raw struct {
			Time, Method, Path, Authority, Peer, Upstream, Details string
			Status                                                 json.RawMessage
		}
		if json.Unmarshal([]byte(line), &raw) != nil || raw.Method == "" {
			continue
		}
		r := Request{Method: raw.Method, Path: raw.Path, Authority: raw.Authority, Peer: raw.Peer, Upstream: raw.Upstream, Details: raw.Details}
		// What cannot be read is left zero.
		r.Time, _ = time.Parse(time.RFC3339, raw.Time)
		r.Status, _ = strconv.Atoi(strings.Trim(string(raw.Status), `"`))
		r.Allowed = !strings.HasPrefix(r.Details, "rbac_access_denied")
		if m := policy.FindStringSubmatch(decided); m != nil {
			r.Policy = m[1] + "/" + m[2]
		}
		decided = ""
		list = append(list, r)
	}
	return list
}
