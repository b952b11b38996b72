package wds_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

func TestNewRefuses(t *testing.T) {
	token := func(context.Context) (string, error) { return "token", nil }
	for name, tt := range map[string]struct {
		change func(*wds.Config)
		want   string
	}{
		"no address":           {func(c *wds.Config) { c.Addresses = nil }, "Config.Addresses"},
		"no IP":                {func(c *wds.Config) { c.Node.IP = netip.Addr{} }, "Node needs IP"},
		"no pod":               {func(c *wds.Config) { c.Node.Pod = "" }, "Node needs IP, Pod"},
		"no namespace":         {func(c *wds.Config) { c.Node.Namespace = "" }, "Namespace"},
		"no roots":             {func(c *wds.Config) { c.RootsFile = "" }, "Config.RootsFile"},
		"no token":             {func(c *wds.Config) { c.TokenFile = "" }, "Config.TokenFile"},
		"a token in plaintext": {func(c *wds.Config) { c.Insecure = true }, "a token is never sent without TLS"},
		"one by function":      {func(c *wds.Config) { c.Insecure, c.TokenFile, c.Token = true, "", token }, "a token is never sent without TLS"},
		"a certificate in plaintext": {func(c *wds.Config) {
			c.Insecure, c.RootsFile, c.TokenFile, c.Identity = true, "", "", new(identitytest.Source)
		}, "a certificate cannot be shown without TLS"},
		"a token and a certificate":                       {func(c *wds.Config) { c.Identity = new(identitytest.Source) }, "leave out either the token or Identity"},
		"a certificate, and istiod by what comes with it": {func(c *wds.Config) { c.RootsFile, c.TokenFile, c.Identity = "", "", new(identitytest.Source) }, ""},
		"all there is": {nil, ""},
		"functions": {func(c *wds.Config) {
			c.RootsFile, c.Roots, c.TokenFile, c.Token = "", func() ([]byte, error) { return nil, nil }, "", token
		}, ""},
		"plaintext, no token": {func(c *wds.Config) { c.Insecure, c.RootsFile, c.TokenFile = true, "", "" }, ""},
	} {
		cfg := wds.Config{
			Addresses: []string{"127.0.0.1:1"}, RootsFile: "/nonexistent", TokenFile: "/nonexistent",
			Node: wds.Node{IP: netip.MustParseAddr("10.0.0.1"), Pod: "p", Namespace: "ns"},
		}
		if tt.change != nil {
			tt.change(&cfg)
		}
		c, err := wds.New(cfg)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			c.Close()
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
