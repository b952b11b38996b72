package hbone

import (
	"errors"
	"net/netip"
	"testing"
)

func TestParseAuthority(t *testing.T) {
	tests := map[string]struct {
		want netip.AddrPort
		ok   bool
	}{
		"10.0.0.7:8080":                    {netip.MustParseAddrPort("10.0.0.7:8080"), true},
		"[2001:db8::7]:80":                 {netip.MustParseAddrPort("[2001:db8::7]:80"), true},
		"orders.shop.svc.cluster.local:80": {netip.AddrPort{}, true},
		"10.0.0.7":                         {},
		"10.0.0.7:0":                       {},
		"10.0.0.7:70000":                   {},
		"10.0.0.7:+80":                     {},
		":80":                              {},
		"user@10.0.0.7:80":                 {},
		"a b:80":                           {},
		"":                                 {},
	}
	for authority, tt := range tests {
		got, err := parseAuthority(authority)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %v, %v", authority, got, err)
		}
	}
}

func TestCheckLocal(t *testing.T) {
	local := netip.MustParseAddrPort("10.244.1.7:9443")
	tests := map[string]int{ // authority → status, 0: forwarded
		"10.244.1.7:8080":          0,
		"10.244.1.8:8080":          400,
		"127.0.0.1:8080":           400,
		"[::ffff:10.244.1.7]:8080": 400,
		"orders.shop:80":           400,
		"10.244.1.7:15008":         503,
		"10.244.1.7:15021":         503,
		"10.244.1.7:9443":          503,
	}
	for authority, status := range tests {
		target, err := parseAuthority(authority)
		if err != nil {
			t.Fatal(err)
		}
		r := &ConnectRequest{Authority: authority, Target: target, Local: local}
		got := 0
		if refusal, ok := errors.AsType[*Refusal](r.CheckLocal()); ok {
			got = refusal.Status
		}
		if got != status {
			t.Errorf("%s: status %d, want %d", authority, got, status)
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"10.0.0.7:80", "[::1]:1", "a:b:c", "x:80", "[fe80::1%eth0]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseAuthority(s)
		if err != nil && got.IsValid() {
			t.Errorf("%q: %v with an error", s, got)
		}
		if err == nil && got.IsValid() && got.Port() == 0 {
			t.Errorf("%q: port 0", s)
		}
	})
}
