package programmed_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/programmed"
)

// orders has an address and two pods, of which one is headless's too.
func shop() []programmed.Service {
	return []programmed.Service{
		{Namespace: "shop", Name: "orders", Addresses: []string{"10.96.0.7", "fd00:96::7"}, Pods: []string{"10.244.1.8", "10.244.1.9"}},
		{Namespace: "shop", Name: "cart", Addresses: []string{"10.96.0.8"}, Pods: []string{"10.244.2.8"}},
		{Namespace: "shop", Name: "headless", Pods: []string{"10.244.1.9"}},
	}
}

func namesOf(t *testing.T, vendor string) programmed.Names {
	t.Helper()
	for _, v := range edge.Vendors() {
		if v.Name == vendor && v.Upstreams != "" {
			return programmed.Names(v.Upstreams)
		}
	}
	t.Fatalf("%s does not say how its upstreams are named", vendor)
	return ""
}

func up(name string, to ...programmed.Address) programmed.Upstream {
	return programmed.Upstream{Name: name, To: to}
}

func TestWhereAGatewaySendsForAService(t *testing.T) {
	via := a("10.96.0.7", 80)
	via.Via = "10.244.1.5:15008"
	straight := a("10.244.1.8", 8080)
	straight.Via = "10.244.1.8:8080"
	for _, c := range []struct {
		name, vendor string // no vendor: by addresses
		has          []programmed.Upstream
		sends        []programmed.Sends // of orders, cart and headless
		to           string             // of orders
	}{
		{"kgateway, switched", "kgateway", []programmed.Upstream{up("kube_shop_orders_80", a("10.96.0.7", 80)), up("kube_shop_headless_80")},
			[]programmed.Sends{programmed.ToAddress, programmed.Nothing, programmed.Nothing}, "10.96.0.7:80"},
		{"kgateway, pods", "kgateway", []programmed.Upstream{up("kube_shop_orders_80", a("10.244.1.9", 8080), a("10.244.1.8", 8080)), up("kube_shop_headless_80", a("10.244.1.9", 8080))},
			[]programmed.Sends{programmed.ToPods, programmed.Nothing, programmed.ToPods}, "10.244.1.8:8080 10.244.1.9:8080"},
		{"kgateway, one of two ports", "kgateway", []programmed.Upstream{up("kube_shop_orders_80", a("10.96.0.7", 80)), up("kube_shop_orders_81", a("10.244.1.8", 81))},
			[]programmed.Sends{programmed.Mixed, programmed.Nothing, programmed.Nothing}, "10.244.1.8:81 10.96.0.7:80"},
		{"kgateway, pods that are not known yet", "kgateway", []programmed.Upstream{up("kube_shop_orders_80", a("10.244.9.9", 8080))},
			[]programmed.Sends{programmed.Elsewhere, programmed.Nothing, programmed.Nothing}, "10.244.9.9:8080"},
		{"kgateway, names of others", "kgateway", []programmed.Upstream{up("kube_shop_orders-2_80", a("10.96.0.7", 80)), up("kube_shop2_orders_80", a("10.96.0.7", 80)), up("xkube_shop_orders_80", a("10.96.0.7", 80))},
			[]programmed.Sends{programmed.Nothing, programmed.Nothing, programmed.Nothing}, ""},
		{"istio, switched", "istio", []programmed.Upstream{up("outbound|80||orders.shop.svc.cluster.local", via), up("outbound|80|v1|orders.shop.svc.cluster.local", via)},
			[]programmed.Sends{programmed.ToAddress, programmed.Nothing, programmed.Nothing}, "10.96.0.7:80 via 10.244.1.5:15008"},
		{"istio, pods", "istio", []programmed.Upstream{up("outbound|80||orders.shop.svc.other.domain", straight), up("outbound|80||cart.shop.svc", a("10.244.2.8", 1))},
			[]programmed.Sends{programmed.ToPods, programmed.Nothing, programmed.Nothing}, "10.244.1.8:8080"},
		{"by addresses: its own", "", []programmed.Upstream{up("r/0", a("10.96.0.7", 80)), up("r/1", a("fd00:0096::7", 80))},
			[]programmed.Sends{programmed.ToAddress, programmed.Nothing, programmed.Unclear}, "10.96.0.7:80 [fd00:0096::7]:80"},
		{"by addresses: of several Services in one", "", []programmed.Upstream{up("r/0", a("10.96.0.7", 80), a("10.244.2.8", 8080))},
			[]programmed.Sends{programmed.ToAddress, programmed.ToPods, programmed.Unclear}, "10.96.0.7:80"},
		{"by addresses: a pod that is nobody else's", "", []programmed.Upstream{up("r/0", a("10.244.1.8", 80), a("10.244.1.9", 80))},
			[]programmed.Sends{programmed.ToPods, programmed.Nothing, programmed.Unclear}, "10.244.1.8:80"},
		{"by addresses: pods of two", "", []programmed.Upstream{up("r/0", a("10.244.1.9", 80))},
			[]programmed.Sends{programmed.Unclear, programmed.Nothing, programmed.Unclear}, ""},
		{"by addresses: both", "", []programmed.Upstream{up("r/0", a("10.96.0.7", 80)), up("r/1", a("10.244.1.8", 80))},
			[]programmed.Sends{programmed.Mixed, programmed.Nothing, programmed.Unclear}, "10.244.1.8:80 10.96.0.7:80"},
		{"by names of DNS", "", []programmed.Upstream{up("k", a("cart.shop.svc.cluster.local", 80)), up("k2", a("orders.shop.svc", 80)), up("k3", a("orders.shop.example.com", 80))},
			[]programmed.Sends{programmed.ToName, programmed.ToName, programmed.Unclear}, "orders.shop.svc:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var names programmed.Names
			if c.vendor != "" {
				names = namesOf(t, c.vendor)
			}
			ways, err := (&programmed.Proxy{Upstreams: c.has}).Ways(names, shop())
			if err != nil {
				t.Fatal(err)
			}
			var sends []programmed.Sends
			for _, w := range ways {
				sends = append(sends, w.Sends)
			}
			if d := cmp.Diff(c.sends, sends); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if got := strings.Join(ways[0].To, " "); got != c.to {
				t.Errorf("orders leads to %q, want %q", got, c.to)
			}
		})
	}
}

func TestWhatIsUnclearSaysWhy(t *testing.T) {
	ways, err := (&programmed.Proxy{}).Ways("", shop())
	if err != nil || !strings.Contains(ways[0].Why, "its pods are those of Service shop/headless too") || !strings.Contains(ways[2].Why, "shop/orders") || ways[1].Why != "it has nothing for it" {
		t.Errorf("%+v, %v", ways, err)
	}
	ways, err = (&programmed.Proxy{Upstreams: []programmed.Upstream{up("kube_shop_orders_80")}}).Ways(namesOf(t, "kgateway"), shop())
	if err != nil || ways[0].Why != "what it has for it leads nowhere" || ways[0].Upstreams[0] != "kube_shop_orders_80" {
		t.Errorf("%+v, %v", ways, err)
	}
	if _, err := (&programmed.Proxy{}).Ways("kube_{name}", shop()); err == nil {
		t.Error("names without a namespace tell Services apart")
	}
}

func TestALotIsToldShortly(t *testing.T) {
	var has []programmed.Upstream
	for i := range 40 {
		has = append(has, up("kube_shop_orders_"+strings.Repeat("1", i+1), a("10.244.1.8", 8080+i)))
	}
	ways, err := (&programmed.Proxy{Upstreams: has}).Ways(namesOf(t, "kgateway"), shop())
	if err != nil || len(ways[0].To) != programmed.MaxTold || len(ways[0].Upstreams) != programmed.MaxTold {
		t.Errorf("%+v, %v", ways[0], err)
	}
}

func TestProxiesTogether(t *testing.T) {
	of := func(sends programmed.Sends, to string) []programmed.Way {
		return []programmed.Way{{Sends: sends, To: []string{to}, Upstreams: []string{"c"}}}
	}
	got := programmed.Together([][]programmed.Way{of(programmed.ToAddress, "a"), of(programmed.ToAddress, "a")})
	if d := cmp.Diff(of(programmed.ToAddress, "a"), got); d != "" {
		t.Errorf("alike: -want +got\n%s", d)
	}
	got = programmed.Together([][]programmed.Way{of(programmed.ToAddress, "a"), of(programmed.ToPods, "b")})
	if w := got[0]; w.Sends != programmed.Mixed || strings.Join(w.To, " ") != "a b" {
		t.Errorf("not alike: %+v", w)
	}
}
