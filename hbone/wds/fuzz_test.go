package wds

import (
	"reflect"
	"runtime"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

func FuzzDecodeAddress(f *testing.F) {
	f.Add([]byte(msg{}.bytes(1, msg{}.str(20, "uid").str(2, "shop").bytes(3, ipBytes("10.0.0.1")).varint(5, 1).
		bytes(22, msg{}.str(1, "shop/cart").bytes(2, msg{}.bytes(1, msg{}.varint(1, 80).varint(2, 8080)))))))
	f.Add([]byte(msg{}.bytes(2, msg{}.str(3, "cart.shop").bytes(4, networkAddress("", "10.96.0.1")).bytes(5, msg{}.varint(1, 80)).
		bytes(7, msg{}.bytes(1, msg{}.str(1, "edge").str(2, "w")).varint(3, 15008)))))
	f.Add([]byte(msg{}.future()))
	f.Fuzz(func(t *testing.T, in []byte) {
		w, s, err := decodeAddress(in, nil)
		if err != nil {
			return
		}
		table := route.NewTable()
		var dial []string
		if w != nil {
			table.SetWorkload(w)
			for _, ip := range w.Addresses {
				dial = append(dial, "["+ip.String()+"]:80")
			}
			table.Remove(w.UID)
			table.SetWorkload(w)
		}
		if s != nil {
			table.SetService(s)
			dial = append(dial, s.Hostname+":80")
			for _, a := range s.Addresses {
				dial = append(dial, "["+a.IP.String()+"]:80")
			}
		}
		for _, d := range dial {
			r, err := table.Resolve(route.Source{}, d, func(string) bool { return true })
			for _, h := range r.Hops {
				if err == nil && len(h.Peers) == 0 {
					t.Fatalf("an open hop: %+v", h)
				}
			}
		}
	})
}

func FuzzDecodeAuthorization(f *testing.F) {
	f.Add([]byte(policy(msg{}.varint(3, 1).bytes(5, rules(msg{}.bytes(3, exact("td/ns/a/sa/b")).bytes(5, prefix("10.0.0.0", 8)).varint(9, 80))))))
	f.Add([]byte(policy(msg{}.varint(4, 1).bytes(5, nil))))
	f.Add([]byte(msg{}.future()))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := decodeAuthorization(in)
		if err != nil {
			return
		}
		again, err := decodeAuthorization(in)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("the same bytes give %+v and %+v, %v", p, again, err)
		}
		set := authz.NewSet([]*authz.Policy{p}, p.Namespace, []string{p.Key()})
		if d := set.Decide(authz.Conn{}); p.Action == authz.Allow && !p.DryRun && len(p.Rules) == 0 && d.Allow {
			t.Fatalf("an ALLOW without rules allows: %+v", d)
		}
	})
}

// What a message makes us hold is bounded by its size: the densest message is one of matches with nothing but an extension.
func TestDecodingIsBounded(t *testing.T) {
	const size = 1 << 20
	var matches msg
	for len(matches) < size {
		matches = matches.bytes(2, msg{}.bytes(13, nil))
	}
	var ports msg
	for len(ports) < size {
		ports = ports.bytes(5, nil)
	}
	for name, decode := range map[string]func() error{
		"matches": func() error {
			_, err := decodeAuthorization(policy(msg{}.bytes(5, msg{}.bytes(1, matches))))
			return err
		},
		"ports": func() error {
			_, _, err := decodeAddress(msg{}.bytes(2, ports.str(3, "host")), nil)
			return err
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := decode(); err != nil {
			t.Fatal(name, err)
		}
		runtime.ReadMemStats(&after)
		// Such a match of four bytes is 288 bytes here; growing lists copies them some times.
		if got := after.TotalAlloc - before.TotalAlloc; got > 600*size {
			t.Errorf("%s: %d bytes for a message of %d", name, got, size)
		}
	}
}
