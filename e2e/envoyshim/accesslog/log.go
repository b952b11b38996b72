package accesslog

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Request is a line of Envoy's access log: an HTTP request, or a TCP connection at its end.
type Request struct {
	Time time.Time
	// Method, Path and Authority are as Envoy received them, Status is what it answered: "" and 0 for a TCP connection.
	Method, Path, Authority string
	Status                  int
	// Peer is the SPIFFE id that the caller of a waypoint, or of a port with mutual TLS, has shown. "" when it showed none.
	Peer string
	// Principal is issuer/subject of the token that the request brought and that was verified, "" without one.
	Principal string
	// Client and Target are the addresses, ip:port, between which the caller believes to speak: at a waypoint, Target
	// is the address in its CONNECT.
	Client, Target string
	// Upstream is the address, ip:port, that it went to, "" when it went nowhere. HBONE says that it went there in a tunnel. What
	// a gateway sends through a waypoint has the waypoint's own address here, with port 15008.
	Upstream string
	HBONE    bool
	// Allowed says that authorization has not denied it.
	Allowed bool
	// Policy is namespace/name of the AuthorizationPolicy that matched, and Rule the index of its rule. "" and 0 when none
	// matched: then it is allowed because there is no ALLOW policy, or denied because there are some.
	Policy string
	Rule   int
	// Details is Envoy's word for how it ended, as via_upstream or rbac_access_denied_matched_policy[none]. Flags are
	// its response flags, "" when there are none.
	Details, Flags string
}

// accessLine is what Format makes; what Envoy does not know is null.
type accessLine struct {
	Time                                          time.Time
	Method, Path, Authority, Peer, Client, Target string
	Details, Ended, Flags, Policy, Upstream       string
	Iss, Sub                                      string
	TLSPeer                                       string `json:"tls_peer"`
	TCPPolicy                                     string `json:"tcp_policy"`
	Status                                        int
}

// Istio's name of a rule, and Envoy's name of a denial.
var (
	ruleName = regexp.MustCompile(`^ns\[([^\]]*)\]-policy\[([^\]]*)\]-rule\[(\d+)\]$`)
	denial   = regexp.MustCompile(`^rbac_access_denied_matched_policy\[(.*)\]$`)
)

// Requests reads the lines that Format has made in an Envoy's log, oldest first. Other lines are passed over, as is a last one
// that is not complete. Envoy writes a line up to 20 ms after the end of what it is about.
func Requests(log string) []Request {
	var list []Request
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var l accessLine
		if json.Unmarshal([]byte(line), &l) != nil || l.Time.IsZero() {
			continue
		}
		list = append(list, l.request())
	}
	return list
}

func (l *accessLine) request() Request {
	r := Request{
		Time: l.Time, Method: l.Method, Path: l.Path, Authority: l.Authority, Status: l.Status, Peer: l.Peer,
		Client: l.Client, Target: l.Target, Allowed: true, Details: l.Details,
	}
	if r.Peer == "" {
		r.Peer = l.TLSPeer
	}
	if l.Iss != "" || l.Sub != "" {
		r.Principal = l.Iss + "/" + l.Sub
	}
	if r.Details == "" {
		r.Details = l.Ended
	}
	if l.Flags != "-" {
		r.Flags = l.Flags
	}
	// Through an internal listener it is envoy://connect_originate/10.0.0.1:80.
	r.Upstream, r.HBONE = strings.CutPrefix(l.Upstream, "envoy://connect_originate/")
	name := l.Policy
	if name == "" {
		name = l.TCPPolicy
	}
	if m := denial.FindStringSubmatch(r.Details); m != nil {
		r.Allowed, name = false, m[1]
	}
	if m := ruleName.FindStringSubmatch(name); m != nil {
		r.Policy = m[1] + "/" + m[2]
		r.Rule, _ = strconv.Atoi(m[3]) // of digits only
	}
	return r
}
