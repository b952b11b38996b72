package wds

import (
	"bytes"
	"strings"
	"testing"
)

// Each field that is known is refused where it is written as it cannot be: read as if it were not there, a waypoint or a condition would be missing.
func TestKnownFieldsOfOtherWireTypes(t *testing.T) {
	workload := func(num int) func(msg) msg {
		return func(m msg) msg {
			w := msg{}.str(20, "uid")
			if num > 0 {
				return msg{}.bytes(1, w.bytes(protoNumber(num), m))
			}
			return msg{}.bytes(1, append(w, m...))
		}
	}
	service := func(nums ...int) func(msg) msg {
		return func(m msg) msg {
			for _, n := range nums {
				m = msg{}.bytes(protoNumber(n), m)
			}
			return msg{}.bytes(2, append(msg{}.str(3, "host"), m...))
		}
	}
	match := func(nums ...int) func(msg) msg {
		return func(m msg) msg {
			for _, n := range append(nums, 2, 1, 5) {
				m = msg{}.bytes(protoNumber(n), m)
			}
			return policy(m)
		}
	}
	for name, tt := range map[string]struct {
		known fields
		in    func(msg) msg
	}{
		"address": {addressFields, func(m msg) msg { return m }}, "workload": {workloadFields, workload(0)}, "tunnel": {tunnelFields, workload(23)},
		"capacity": {capacityFields, workload(27)}, "locality": {localityFields, workload(24)}, "member": {memberFields, workload(22)},
		"waypoint": {gatewayFields, workload(8)}, "service": {serviceFields, service()}, "balancing": {balancingFields, service(8)}, "port": {portFields, service(5)},
		"VIP": {networkAddressFields, service(4)}, "weighted": {weightedFields, service(13)}, "host": {hostFields, service(1, 7)},
		"policy": {policyFields, policy}, "clause": {clauseFields, func(m msg) msg { return policy(msg{}.bytes(5, msg{}.bytes(1, m))) }},
		"rule": {ruleFields, func(m msg) msg { return policy(msg{}.bytes(5, m)) }}, "match": {matchFields, match()},
		"string": {stringFields, match(3)}, "prefix": {prefixFields, match(5)}, "account": {accountFields, match(11)},
	} {
		for num, k := range tt.known {
			if k == 0 {
				continue
			}
			n := protoNumber(num)
			wrong := []msg{{}, {}}
			wrong[0] = appendFixed32(n)
			switch k {
			case text:
				wrong[1] = msg{}.varint(n, 1)
			case number:
				wrong[1] = msg{}.bytes(n, []byte{1})
			default:
				wrong = wrong[:1]
			}
			for _, w := range wrong {
				in := tt.in(w)
				_, _, err := decodeAddress(in, nil)
				if strings.Contains("policy clause rule match string prefix account", name) {
					_, err = decodeAuthorization(in)
				}
				if err == nil || !strings.Contains(err.Error(), "its wire type is") {
					t.Errorf("%s, field %d: %v", name, num, err)
				}
			}
		}
	}
	if _, err := decodeAuthorization(match()(appendFixed32(14))); err == nil {
		t.Error("a condition of the future, of a type that none has yet, is passed over")
	}
	if _, _, err := decodeAddress(bytes.Join([][]byte{aPod, aService}, nil), nil); err == nil || !strings.Contains(err.Error(), "both a workload and a service") {
		t.Errorf("%v", err)
	}
}
