package edge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

func TestEveryVendorIsDescribed(t *testing.T) {
	names, controllers := map[string]bool{}, map[string]string{}
	for _, v := range append(edge.Vendors(), edge.Custom()) {
		if v.Name == "" || names[v.Name] {
			t.Errorf("%q is no name, or that of two", v.Name)
		}
		names[v.Name] = true
		if v.Name == "custom" {
			continue
		}
		if len(v.Controllers)+len(v.IngressControllers) == 0 || v.Inspect == "" || len(v.Ports) == 0 && v.Never == "" {
			t.Errorf("%s lacks controllers, ports, or where to look", v.Name)
		}
		found := 0
		for _, yes := range []bool{len(v.Proxies.Labels) > 0, len(v.Proxies.Service) > 0, v.Proxies.Shared} {
			if yes {
				found++
			}
		}
		if len(v.Controllers) > 0 && found != 1 {
			t.Errorf("%s: its pods are found in %d ways", v.Name, found)
		}
		byWorkload := v.Proxies.Shared || len(v.IngressControllers) > 0
		if m := v.Workload; byWorkload && len(m.Labels)+len(m.Images) == 0 {
			t.Errorf("%s: nothing tells its workload", v.Name)
		}
		if len(v.Switches) == 0 && v.NoSwitch == "" && v.Name != "caddy" {
			t.Errorf("%s: nobody says how it comes by a waypoint", v.Name)
		}
		if len(v.Switches) > 0 && v.Headless == "" {
			t.Errorf("%s: nobody says what comes of headless Services", v.Name)
		}
		for _, s := range v.Switches {
			// One switch for all Services comes while some of them cannot lead to a waypoint, and must not cut those off.
			if wide := s.On == edge.OnGateway || s.On == edge.OnParameters; wide && !strings.Contains(v.Headless, "stays with pods") {
				t.Errorf("%s: its switch is for a whole gateway, and of a headless Service it is said: %s", v.Name, v.Headless)
			}
		}
		for _, c := range append(slices.Clone(v.Controllers), v.IngressControllers...) {
			if other := controllers[c]; other != "" && other != v.Name {
				t.Errorf("%s is claimed by %s and %s", c, other, v.Name)
			}
			controllers[c] = v.Name
		}
		for _, c := range v.Controllers {
			if got := edge.ByController(c).Name; got != v.Name {
				t.Errorf("%s: got %s, want %s", c, got, v.Name)
			}
		}
		for _, c := range v.IngressControllers {
			if got := edge.ByIngressController(c).Name; got != v.Name {
				t.Errorf("%s: got %s, want %s", c, got, v.Name)
			}
		}
		for _, image := range v.Workload.Images {
			if got := edge.ByWorkload(nil, []string{"registry:5000/mirror/" + image + ":v1.2.3@sha256:00"}).Name; got != v.Name {
				t.Errorf("%s: got %s, want %s", image, got, v.Name)
			}
		}
		if len(v.Workload.Labels) > 0 {
			if got := edge.ByWorkload(v.Workload.Labels, nil).Name; got != v.Name {
				t.Errorf("%v: got %s, want %s", v.Workload.Labels, got, v.Name)
			}
		}
	}
}

func TestSwitchesAreWhole(t *testing.T) {
	for _, v := range edge.Vendors() {
		for i := range v.Switches {
			s := &v.Switches[i]
			if s.Kind.Version == "" || s.Kind.Resource == "" || len(s.Path) == 0 || s.Value == nil {
				t.Errorf("%s: %+v lacks something", v.Name, s)
			}
			if policy := s.On == edge.OnGateway || s.On == edge.OnServiceByRef; policy != (s.Target[1] != "") {
				t.Errorf("%s: %s has target %v", v.Name, s, s.Target)
			}
			if list := s.On == edge.OnList; list != (len(s.List) > 0 && s.Name != "") || list == s.Writable() {
				t.Errorf("%s: %s has list %v of %q", v.Name, s, s.List, s.Name)
			}
			if s.Unreleased && s.Since == "" {
				t.Errorf("%s: %s is unreleased, and nobody says when it comes", v.Name, s)
			}
		}
	}
	for _, c := range []struct{ vendor, want string }{
		{"kgateway", "istio.io/ingress-use-waypoint=true"},
		{"envoy-gateway", "EnvoyProxy spec.routingType=Service"},
		{"ingress-nginx", "Ingress metadata.annotations[nginx.ingress.kubernetes.io/service-upstream]=true"},
		{"apisix", "ApisixRoute spec.http.backends.resolveGranularity=service"},
	} {
		at := slices.IndexFunc(edge.Vendors(), func(v edge.Vendor) bool { return v.Name == c.vendor })
		if got := edge.Vendors()[at].Switches[0].String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.vendor, got, c.want)
		}
	}
	for kind, want := range map[string]edge.Use{
		"EnvoyProxy": {Patch: true}, "BackendTrafficPolicy": {Patch: true, Make: true}, "NginxProxy": {Patch: true},
		"UpstreamSettingsPolicy": {Patch: true, Make: true}, "VirtualServer": {}, "VirtualServerRoute": {}, "IngressRoute": {}, "ApisixRoute": {},
	} {
		at := slices.IndexFunc(edge.Uses(), func(u edge.Use) bool { return u.Kind.Kind == kind })
		if at < 0 {
			t.Errorf("%s is not among %v", kind, edge.Uses())
			continue
		}
		if u := edge.Uses()[at]; u.Patch != want.Patch || u.Make != want.Make || !strings.HasPrefix(u.APIVersion(), u.Group+"/") {
			t.Errorf("%s: %+v", kind, u)
		}
	}
}

func TestWhatIsNotKnownIsCustom(t *testing.T) {
	for _, name := range []string{"example.com/other", ""} {
		if a, b := edge.ByController(name).Name, edge.ByIngressController(name).Name; a != "custom" || b != "custom" {
			t.Errorf("%q is %s, %s", name, a, b)
		}
	}
	for _, c := range []struct {
		image string
		want  string
	}{
		{"orders", "custom"}, {"example.com/notkong:1", "custom"}, {"kong:3.9", "kong"}, {"docker.io/library/traefik:v3.6", "traefik"},
		{"registry.k8s.io/ingress-nginx/controller:v1.15.1", "ingress-nginx"}, {"nginx:1.29", "custom"}, {"", "custom"},
	} {
		if got := edge.ByWorkload(map[string]string{"app": "x"}, []string{c.image}).Name; got != c.want {
			t.Errorf("%q is %s, want %s", c.image, got, c.want)
		}
	}
	if got := edge.ByIngressController("haproxy.org/ingress-controller/internal").Name; got != "haproxytech" {
		t.Errorf("a class of its own is %s", got)
	}
	if got := edge.ByIngressController("haproxy.org/ingress-controllers").Name; got != "custom" {
		t.Errorf("a name that only begins so is %s", got)
	}
	if v, ok := edge.ByControllerWorkload(map[string]string{"app": "istiod"}, nil); !ok || v.Name != "istio" {
		t.Errorf("istiod is the controller of %s, %v", v.Name, ok)
	}
	if v, ok := edge.ByControllerWorkload(nil, []string{"orders"}); ok {
		t.Errorf("orders is the controller of %s", v.Name)
	}
}

func TestVersions(t *testing.T) {
	fabric := edge.Match{Images: []string{"nginx-gateway-fabric"}}
	for _, c := range []struct{ image, want string }{
		{"ghcr.io/nginx/nginx-gateway-fabric:2.6.7", "2.6.7"}, {"nginx-gateway-fabric:v2.7.0-rc1", "2.7.0-rc1"},
		{"ghcr.io:443/nginx/nginx-gateway-fabric", ""}, {"ghcr.io/nginx/nginx-gateway-fabric:edge", ""},
		{"ghcr.io/nginx/nginx-gateway-fabric@sha256:0123", ""}, {"ghcr.io/nginx/nginx-gateway-fabric/nginx:2.6.7", ""}, {"x/nginx-gateway-fabric:2", ""},
	} {
		if got := fabric.Version([]string{"sidecar:9.9.9", c.image}); got != c.want {
			t.Errorf("%s: %q, want %q", c.image, got, c.want)
		}
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"2.6.7", "2.7.0", true}, {"2.7.0", "2.7.0", false}, {"2.10.0", "2.7.0", false}, {"1.8", "1.8.0", true}, {"3", "2.7.0", false},
		{"2.7.0-rc1", "2.7.0", false}, {"x", "1.0.0", true}, {"99999999999999999999.1", "2", false},
	} {
		if got := edge.Before(c.a, c.b); got != c.want {
			t.Errorf("%s before %s: %v", c.a, c.b, got)
		}
	}
}

func TestLabelsOfOneGateway(t *testing.T) {
	got := edge.Of(map[string]string{"a": "{name}", "b": "envoy-{namespace}-{name}", "c": "{name}-{class}", "d": "x"}, "ns", "http", "eg")
	for k, want := range map[string]string{"a": "http", "b": "envoy-ns-http", "c": "http-eg", "d": "x"} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
}

// FuzzVersion reads tags of images, which others write.
func FuzzVersion(f *testing.F) {
	for _, s := range []string{"a/nginx-gateway-fabric:2.6.7", "nginx-gateway-fabric:v1", ":", "@", "a:1/b"} {
		f.Add(s)
	}
	m := edge.Match{Images: []string{"nginx-gateway-fabric"}}
	f.Fuzz(func(t *testing.T, image string) {
		v := m.Version([]string{image})
		if v != "" && (!strings.Contains(image, v) || edge.Before(v, v)) {
			t.Errorf("%q has version %q", image, v)
		}
		m.Fits(nil, []string{image})
	})
}

// TestPagesAreWhereVendorsHaveThem holds the table to what was seen running, or read: ports of people's own are not taken for a gateway's.
func TestPagesAreWhereVendorsHaveThem(t *testing.T) {
	const dump = "/config_dump?include_eds"
	want := map[string][]edge.Page{
		"istio":         {{Port: 15000, Path: dump}},
		"kgateway":      {{Port: 19000, Path: dump}, {Controller: true, Port: 9095, Path: "/snapshots/xds"}},
		"envoy-gateway": {{Port: 19000, Path: dump}},
		"traefik":       {{Port: 8080, Path: "/api/rawdata", Outside: true, Needs: "api.insecure=true"}},
	}
	for _, v := range edge.Vendors() {
		if !slices.Equal(v.Shows, want[v.Name]) {
			t.Errorf("%s shows it on %+v, want %+v", v.Name, v.Shows, want[v.Name])
		}
		for _, p := range v.Shows {
			if path, _, _ := strings.Cut(p.Path, "?"); v.Name != "istio" && !strings.Contains(v.Inspect, path) {
				t.Errorf("%s: of %s people are told nothing: %s", v.Name, path, v.Inspect)
			}
			if p.Controller && len(v.Controller.Labels)+len(v.Controller.Images) == 0 {
				t.Errorf("%s: nothing tells its controller, which shows %s", v.Name, p.Path)
			}
		}
		if u := v.Upstreams; u != "" && (len(v.Shows) == 0 || !strings.Contains(u, "{namespace}") || !strings.Contains(u, "{name}")) {
			t.Errorf("%s: upstreams %q do not tell a Service", v.Name, u)
		}
	}
}
