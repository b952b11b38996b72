package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadings(t *testing.T) {
	for name, tt := range map[string]struct {
		policy string
		want   []Reading
	}{
		"a rule that it knows": {ruled("ALLOW", "{from: [{source: {principals: [x]}}], to: [{operation: {ports: ['80']}}]}"), []Reading{{}}},
		"a rule for all":       {ruled("DENY", "{}"), []Reading{{}}},
		"an ALLOW of requests": {ruled("ALLOW", op+"paths: [/x]}}], from: [{source: {principals: [x]}}]}"), []Reading{{Void: true,
			Lost: []string{"rules[0].to[0].operation.paths"}}}},
		"the second of two": {ruled("ALLOW", "{}, "+op+"methods: [GET]}}]}"), []Reading{{}, {Rule: 1, Void: true,
			Lost: []string{"rules[1].to[0].operation.methods"}}}},
		"a DENY of requests": {ruled("DENY", op+"hosts: [x]}}], from: [{source: {principals: [x]}}]}"), []Reading{{Void: true,
			Lost: []string{"rules[0].to[0].operation.hosts"}}}},
		"a DENY of requests to a port": {ruled("DENY", op+"paths: [/x], ports: ['80']}}]}"), []Reading{{Wider: true,
			Lost: []string{"rules[0].to[0].operation.paths"}}}},
		"a DENY of two kinds of requests": {ruled("DENY", op+"paths: [/x]}}, {operation: {ports: ['80']}}]}"),
			[]Reading{{Lost: []string{"rules[0].to[0].operation.paths"}}}},
		"a DENY of a token from somewhere": {ruled("DENY", "{from: [{source: {namespaces: [x], requestPrincipals: ['*']}}]}"), []Reading{{Wider: true,
			Lost: []string{"rules[0].from[0].source.requestPrincipals"}}}},
		"a DENY by a header": {ruled("DENY", "{when: [{key: 'request.headers[x]', values: [z]}]}"), []Reading{{Void: true,
			Lost: []string{"rules[0].when[0]"}}}},
		"a trust domain": {ruled("ALLOW", "{from: [{source: {trustDomains: [x]}}]}"), []Reading{{Void: true,
			Lost: []string{"rules[0].from[0].source.trustDomains"}}}},
		"a trust domain and a namespace": {ruled("ALLOW", "{from: [{source: {trustDomains: [x], namespaces: [z]}}]}"), []Reading{{Wider: true,
			Lost: []string{"rules[0].from[0].source.trustDomains"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := AtZtunnel(objects(t, tt.policy).AuthorizationPolicies[0])
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
