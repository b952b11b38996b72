package policy

import (
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Each case names what authorization semantics it is about.
func TestAtZtunnel(t *testing.T) {
	const gw = "cluster.local/ns/edge/sa/gateway"
	for name, tt := range map[string]struct {
		example
		change func(*Request)
	}{
		// Evaluation order.
		"no policy allows":                        {example{"{spec: {selector: {matchLabels: {app: other}}}}", "allow: no policy asks"}, nil},
		"an ALLOW that matches allows":            {example{ruled("ALLOW", "{from: [{source: {principals: ["+gw+"]}}]}"), "allow: an ALLOW policy matches (AuthorizationPolicy shop/a rules[0])"}, nil},
		"an ALLOW is default-deny for all others": {example{ruled("ALLOW", "{from: [{source: {principals: [other]}}]}"), "deny: no ALLOW policy matches (AuthorizationPolicy shop/a)"}, nil},
		"an ALLOW without rules denies all":       {example{"{spec: {action: ALLOW}}", "deny: no ALLOW policy matches"}, nil},
		"a DENY without rules denies nobody":      {example{"{spec: {action: DENY}}", "allow: no policy asks"}, nil},
		"a rule {} matches all":                   {example{ruled("ALLOW", "{}"), "allow"}, nil},
		"DENY before ALLOW":                       {example{ruled("ALLOW", "{}") + "\n---\n" + ruled("DENY", "{}"), "deny: a DENY policy matches (AuthorizationPolicy shop/b rules[0])"}, nil},
		"any ALLOW will do":                       {example{ruled("ALLOW", "{from: [{source: {principals: [x]}}]}") + "\n---\n" + ruled("ALLOW", "{from: [{source: {namespaces: [edge]}}]}"), "allow: an ALLOW policy matches (AuthorizationPolicy shop/b"}, nil},
		"of several ALLOWs none is named":         {example{"{spec: {}}\n---\n{spec: {}}", "deny: no ALLOW policy matches"}, nil},
		"any rule will do":                        {example{ruled("ALLOW", "{from: [{source: {principals: [x]}}]}, {}"), "allow: an ALLOW policy matches (AuthorizationPolicy shop/a rules[1])"}, nil},
		"from and to and when":                    {example{ruled("DENY", `{from: [{source: {namespaces: [edge]}}], to: [{operation: {ports: ["8080"]}}], when: [{key: source.ip, values: [10.0.0.0/8]}]}`), "deny"}, nil},
		"from and to, which does not":             {example{ruled("DENY", `{from: [{source: {namespaces: [edge]}}], to: [{operation: {ports: ["81"]}}]}`), "allow"}, nil},
		"any source":                              {example{ruled("DENY", "{from: [{source: {namespaces: [x]}}, {source: {namespaces: [edge]}}]}"), "deny"}, nil},
		"fields of a source go together":          {example{ruled("DENY", "{from: [{source: {namespaces: [edge], ipBlocks: [192.0.2.0/24]}}]}"), "allow"}, nil},
		"values of a field are alternatives":      {example{ruled("DENY", "{from: [{source: {namespaces: [x, edge]}}]}"), "deny"}, nil},

		// How values compare.
		"a prefix":                           {example{ruled("DENY", "{from: [{source: {principals: [cluster.local/ns/edge/*]}}]}"), "deny"}, nil},
		"a suffix":                           {example{ruled("DENY", "{from: [{source: {principals: ['*/sa/gateway']}}]}"), "deny"}, nil},
		"presence":                           {example{ruled("DENY", "{from: [{source: {principals: ['*']}}]}"), "deny"}, nil},
		"presence of nobody":                 {example{ruled("DENY", "{from: [{source: {principals: ['*']}}]}"), "allow"}, outside},
		"spiffe:// never matches":            {example{ruled("DENY", "{from: [{source: {principals: [spiffe://"+gw+"]}}]}"), "allow"}, nil},
		"a * inside is literal":              {example{ruled("DENY", "{from: [{source: {namespaces: ['e*e']}}]}"), "allow"}, nil},
		"an account of a namespace":          {example{ruled("DENY", "{from: [{source: {serviceAccounts: [edge/gateway]}}]}"), "deny"}, nil},
		"an account of the policy's own":     {example{ruled("DENY", "{from: [{source: {serviceAccounts: [gateway]}}]}"), "allow"}, nil},
		"an account of another trust domain": {example{ruled("DENY", "{from: [{source: {serviceAccounts: [edge/gateway]}}]}"), "deny"}, func(r *Request) { r.Source = Of(id("other.td/ns/edge/sa/gateway")) }},
		"notPrincipals":                      {example{ruled("DENY", "{from: [{source: {notPrincipals: ["+gw+"]}}]}"), "allow"}, nil},
		"a port that is none":                {example{ruled("DENY", "{to: [{operation: {ports: [http]}}]}"), "allow"}, nil},
		"an address":                         {example{ruled("DENY", "{from: [{source: {ipBlocks: [10.244.1.5]}}]}"), "deny"}, nil},
		"an address in IPv6 form":            {example{ruled("DENY", "{from: [{source: {ipBlocks: [10.244.1.0/24]}}]}"), "deny"}, func(r *Request) { r.SourceIP = addr("::ffff:10.244.1.5") }},

		// Where policies are attached.
		"targetRefs are ignored":                                 {example{"{spec: {action: DENY, rules: [{}], targetRefs: [{kind: Service, name: orders}]}}", "allow: no policy asks"}, nil},
		"targetRef too":                                          {example{"{spec: {action: DENY, rules: [{}], targetRef: {kind: Service, name: orders}}}", "allow: no policy asks"}, nil},
		"a selector":                                             {example{"{spec: {action: DENY, rules: [{}], selector: {matchLabels: {app: orders}}}}", "deny"}, nil},
		"a selector of two labels":                               {example{"{spec: {action: DENY, rules: [{}], selector: {matchLabels: {app: orders, tier: front}}}}", "allow"}, nil},
		"the root namespace is for all":                          {example{"{metadata: {namespace: istio-system}, spec: {action: DENY, rules: [{}]}}", "deny"}, nil},
		"so is a selector there":                                 {example{"{metadata: {namespace: istio-system}, spec: {action: DENY, rules: [{}], selector: {matchLabels: {app: orders}}}}", "deny"}, nil},
		"another namespace's is not":                             {example{"{metadata: {namespace: other}, spec: {action: DENY, rules: [{}]}}", "allow"}, nil},
		"dry run decides nothing":                                {example{"{metadata: {annotations: {istio.io/dry-run: 'true'}}, spec: {action: DENY, rules: [{}]}}", "allow"}, nil},
		"a dry run that is not one":                              {example{"{metadata: {annotations: {istio.io/dry-run: 'yes'}}, spec: {action: DENY, rules: [{}]}}", "deny"}, nil},
		"7: CUSTOM is not sent":                                  {example{"{spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}}", "allow: no policy asks"}, nil},
		"7: AUDIT is not sent":                                   {example{"{spec: {action: AUDIT, rules: [{}]}}", "allow: no policy asks"}, nil},
		"B1: an ALLOW of the gateway does not know the waypoint": {example{ruled("ALLOW", "{from: [{source: {principals: ["+gw+"]}}]}"), "deny"}, func(r *Request) { r.Source = Of(waypoint) }},

		// HTTP attributes.
		"B2: a rule of ALLOW with HTTP is dropped":        {example{ruled("ALLOW", "{from: [{source: {principals: ["+gw+"]}}], to: [{operation: {methods: [GET]}}]}"), "deny: no ALLOW policy matches"}, nil},
		"the other rules stay":                            {example{ruled("ALLOW", "{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [edge]}}]}"), "allow: an ALLOW policy matches (AuthorizationPolicy shop/a rules[1])"}, nil},
		"B3: a DENY with only HTTP denies nothing":        {example{ruled("DENY", "{to: [{operation: {paths: [/admin]}}]}"), "allow: no policy asks"}, nil},
		"9: so does one with a source beside":             {example{ruled("DENY", "{from: [{source: {namespaces: [edge]}}], to: [{operation: {methods: [GET]}}]}"), "allow: no policy asks"}, nil},
		"14: with a port beside it denies more":           {example{ruled("DENY", `{to: [{operation: {methods: [DELETE], ports: ["8080"]}}]}`), "deny"}, nil},
		"a source field beside, too":                      {example{ruled("DENY", "{from: [{source: {requestPrincipals: [x], namespaces: [edge]}}]}"), "deny"}, nil},
		"a condition of HTTP never holds":                 {example{ruled("DENY", "{when: [{key: 'request.headers[x]', values: [z]}]}"), "allow"}, nil},
		"an empty alternative beside one that holds":      {example{ruled("DENY", `{to: [{operation: {methods: [GET]}}, {operation: {ports: ["8080"]}}]}`), "deny"}, nil},
		"10: when source.serviceAccount counts as HTTP":   {example{ruled("ALLOW", "{when: [{key: source.serviceAccount, values: [edge/gateway]}]}"), "deny"}, nil},
		"10: when source.trustDomain counts as HTTP":      {example{ruled("ALLOW", "{when: [{key: source.trustDomain, values: [cluster.local]}]}"), "deny"}, nil},
		"conditions of L4":                                {example{ruled("DENY", `{when: [{key: source.principal, values: [`+gw+`]}, {key: destination.port, values: ["8080"]}, {key: destination.ip, notValues: [10.244.1.8]}, {key: source.namespace, values: [edge]}]}`), "deny"}, nil},
		"4: notPrincipals alone admits plaintext":         {example{ruled("ALLOW", "{from: [{source: {notPrincipals: [x]}}]}"), "allow"}, outside},
		"4: notNamespaces alone admits plaintext":         {example{ruled("ALLOW", "{from: [{source: {notNamespaces: [x]}}]}"), "allow"}, outside},
		"5: cluster.local and aliases are what they read": {example{ruled("DENY", "{from: [{source: {principals: [old.td/ns/edge/sa/gateway]}}]}"), "allow"}, nil},
		"7: ports are the pod's":                          {example{ruled("DENY", `{to: [{operation: {ports: ["80"]}}]}`), "allow"}, nil},
		"7: addresses are the pod's":                      {example{ruled("DENY", "{when: [{key: destination.ip, values: [10.96.0.7]}]}"), "allow"}, nil},

		// What is not known.
		"any source, to an ALLOW":                        {example{ruled("ALLOW", "{from: [{source: {principals: ["+gw+"]}}]}"), "depends on source identity (AuthorizationPolicy shop/a rules[0].from[0].source.principals"}, anySource},
		"any source, to a DENY":                          {example{ruled("DENY", "{from: [{source: {notNamespaces: [edge]}}]}"), "depends on source identity (AuthorizationPolicy shop/a rules[0].from[0].source.notNamespaces"}, anySource},
		"any source, at a wrong port":                    {example{ruled("DENY", `{from: [{source: {namespaces: [edge]}}], to: [{operation: {ports: ["1"]}}]}`), "allow"}, anySource},
		"any source, of which all denied":                {example{ruled("DENY", "{}"), "deny"}, anySource},
		"any port and source":                            {example{ruled("DENY", `{from: [{source: {namespaces: [edge]}}], to: [{operation: {ports: ["1"]}}]}`), "depends on source identity, destination port"}, func(r *Request) { *r = Request{} }},
		"one of two, both denied":                        {example{ruled("DENY", "{from: [{source: {namespaces: [edge]}}]}"), "deny"}, func(r *Request) { r.Source = Of(gateway, id("cluster.local/ns/edge/sa/b")) }},
		"one of two, one denied":                         {example{ruled("DENY", "{from: [{source: {namespaces: [edge]}}]}"), "depends on source identity"}, func(r *Request) { r.Source = Of(gateway, waypoint) }},
		"one of two, each admitted by a rule of its own": {example{ruled("ALLOW", "{from: [{source: {namespaces: [edge]}}]}, {from: [{source: {namespaces: [shop]}}]}"), "allow"}, func(r *Request) { r.Source = Of(gateway, waypoint) }},
		"or nobody": {example{ruled("DENY", "{from: [{source: {namespaces: [edge]}}]}"), "depends on source identity"}, func(r *Request) { r.Source = r.Source.OrAbsent() }},
		"an unknown ALLOW that a DENY makes pointless": {example{ruled("ALLOW", "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}") + "\n---\n" + ruled("DENY", "{}"), "deny: a DENY policy matches"}, anySource},
		"an unknown DENY that no ALLOW follows":        {example{ruled("DENY", "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}") + "\n---\n{spec: {}}", "deny: no ALLOW policy matches"}, func(r *Request) { r.SourceIP = Values[netip.Addr]{} }},
	} {
		t.Run(name, func(t *testing.T) {
			r := fromGateway()
			if tt.change != nil {
				tt.change(&r)
			}
			m := objects(t, tt.policies)
			m.TrustDomainAliases = []string{"old.td"}
			tt.check(t, New(m).Ztunnel(pod).Decide(&r))
		})
	}
}

func outside(r *Request)   { r.Source = Absent[spiffeid.ID]() }
func anySource(r *Request) { r.Source = Values[spiffeid.ID]{} }

func TestDryRunThatAnOldZtunnelEnforces(t *testing.T) {
	m := objects(t, "{metadata: {annotations: {istio.io/dry-run: 'true'}}, spec: {action: DENY, rules: [{}]}}")
	m.EnforceDryRun = true
	if d := New(m).Ztunnel(pod).Decide(&Request{}); d.Verdict != Deny {
		t.Error(d)
	}
}

func TestPeerAuthentication(t *testing.T) {
	const (
		root  = "{kind: PeerAuthentication, metadata: {namespace: istio-system, name: root}, spec: {mtls: {mode: STRICT}}}"
		space = "{kind: PeerAuthentication, metadata: {namespace: shop, name: space}, spec: {mtls: {mode: STRICT}}}"
	)
	own := func(spec string) string {
		return "{kind: PeerAuthentication, metadata: {namespace: shop, name: own}, spec: {selector: {matchLabels: {app: orders}}, " + spec + "}}"
	}
	with := func(docs ...string) (all string) {
		for _, d := range docs {
			all += d + "\n---\n"
		}
		return all + "{kind: PeerAuthentication, metadata: {namespace: other, name: other}, spec: {mtls: {mode: STRICT}}}"
	}
	for name, tt := range map[string]struct {
		policies string
		at8080   string // plaintext
		at9090   string
		skipped  bool
	}{
		"nothing is PERMISSIVE":                                     {policies: with(), at8080: "allow", at9090: "allow"},
		"the root namespace's":                                      {policies: with(root), at8080: "deny: plaintext is refused (PeerAuthentication istio-system/root)", at9090: "deny"},
		"the namespace's":                                           {policies: with(space), at8080: "deny: plaintext is refused (PeerAuthentication shop/space)", at9090: "deny"},
		"the workload's":                                            {policies: with(own("mtls: {mode: STRICT}")), at8080: "deny: plaintext is refused (PeerAuthentication shop/own)", at9090: "deny"},
		"the namespace's wins over the root's":                      {policies: with(root, "{kind: PeerAuthentication, metadata: {namespace: shop, name: p}, spec: {mtls: {mode: PERMISSIVE}}}"), at8080: "allow", at9090: "allow"},
		"UNSET inherits":                                            {policies: with(root, "{kind: PeerAuthentication, metadata: {namespace: shop, name: p}, spec: {mtls: {mode: UNSET}}}"), at8080: "deny: plaintext is refused (PeerAuthentication istio-system/root)", at9090: "deny"},
		"the workload's wins":                                       {policies: with(root, space, own("mtls: {mode: DISABLE}")), at8080: "allow", at9090: "allow"},
		"a workload's UNSET inherits":                               {policies: with(space, own("mtls: {}")), at8080: "deny", at9090: "deny"},
		"the oldest wins":                                           {policies: with("{kind: PeerAuthentication, metadata: {namespace: shop, name: y, creationTimestamp: '2026-02-01T00:00:00Z'}, spec: {mtls: {mode: PERMISSIVE}}}", "{kind: PeerAuthentication, metadata: {namespace: shop, name: x, creationTimestamp: '2026-01-01T00:00:00Z'}, spec: {mtls: {mode: STRICT}}}"), at8080: "deny", at9090: "deny"},
		"a selector in the root namespace does nothing (3)":         {policies: with("{kind: PeerAuthentication, metadata: {namespace: istio-system, name: r}, spec: {selector: {matchLabels: {app: orders}}, mtls: {mode: STRICT}}}"), at8080: "allow", at9090: "allow"},
		"a port is strict":                                          {policies: with(own("mtls: {mode: PERMISSIVE}, portLevelMtls: {9090: {mode: STRICT}}")), at8080: "allow", at9090: "deny: plaintext is refused (PeerAuthentication shop/own)"},
		"a port is open":                                            {policies: with(own("mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: PERMISSIVE}}")), at8080: "deny", at9090: "allow"},
		"a port is open by DISABLE":                                 {policies: with(own("mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: DISABLE}}")), at8080: "deny", at9090: "allow"},
		"all strict":                                                {policies: with(own("mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: STRICT}}")), at8080: "deny", at9090: "deny"},
		"a strict port under nothing":                               {policies: with(own("portLevelMtls: {9090: {mode: STRICT}}")), at8080: "allow", at9090: "deny"},
		"an open port under a strict namespace":                     {policies: with(space, own("portLevelMtls: {9090: {mode: PERMISSIVE}}")), at8080: "deny", at9090: "allow"},
		"a port set to DISABLE stays strict there (3)":              {policies: with(space, own("portLevelMtls: {9090: {mode: DISABLE}}")), at8080: "deny", at9090: "deny"},
		"3: fail-open of a strict port under a strict root":         {policies: with(root, own("mtls: {mode: PERMISSIVE}, portLevelMtls: {9090: {mode: STRICT}}")), at8080: "allow", at9090: "allow", skipped: true},
		"3: with DISABLE too":                                       {policies: with(root, own("mtls: {mode: DISABLE}, portLevelMtls: {9090: {mode: STRICT}}")), at8080: "allow", at9090: "allow", skipped: true},
		"fail-open of an open port under UNSET under a strict root": {policies: with(root, "{kind: PeerAuthentication, metadata: {namespace: shop, name: u}, spec: {}}", own("portLevelMtls: {9090: {mode: PERMISSIVE}}")), at8080: "allow", at9090: "allow", skipped: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(objects(t, tt.policies)).Ztunnel(pod)
			for port, want := range map[uint16]string{8080: tt.at8080, 9090: tt.at9090} {
				plain := Request{Source: Absent[spiffeid.ID](), WorkloadPort: Of(port)}
				example{tt.policies, want}.check(t, p.Decide(&plain))
				if d := p.Decide(&Request{Source: Of(gateway), WorkloadPort: Of(port)}); d.Verdict != Allow {
					t.Errorf("the mesh at %d: %s", port, d)
				}
			}
			if skipped := len(p.Skipped) > 0; skipped != tt.skipped {
				t.Errorf("skipped: %v", p.Skipped)
			}
		})
	}
}

// istiod makes the rules of a PeerAuthentication with ports when that comes, and not again when one above it does.
func TestPeerAuthenticationThatIstiodMayNotKnow(t *testing.T) {
	policies := func(root, own string) string {
		return "{kind: PeerAuthentication, metadata: {namespace: istio-system, name: root, creationTimestamp: '" + root + "'}, spec: {mtls: {mode: STRICT}}}\n---\n" +
			"{kind: PeerAuthentication, metadata: {namespace: shop, name: own, creationTimestamp: '" + own + "'}, spec: {selector: {matchLabels: {app: orders}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9090: {mode: STRICT}}}}"
	}
	plain := Request{Source: Absent[spiffeid.ID](), WorkloadPort: Of(uint16(9090))}
	for name, tt := range map[string][3]string{
		"the one above came before":    {"2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "allow"},
		"the one above came later":     {"2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "depends on condition that is not understood (PeerAuthentication shop/own portLevelMtls)"},
		"they came in the same second": {"2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "depends"},
	} {
		t.Run(name, func(t *testing.T) {
			text := policies(tt[0], tt[1])
			p := New(objects(t, text)).Ztunnel(pod)
			example{text, tt[2]}.check(t, p.Decide(&plain))
			other := plain
			other.WorkloadPort = Of(uint16(8080))
			example{text, "allow"}.check(t, p.Decide(&other))
		})
	}
}
