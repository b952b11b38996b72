package envoyshim

import (
	"slices"
	"testing"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	setstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	peerMetadata = "type.googleapis.com/io.istio.http.peer_metadata.Config"
	exchange     = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange"
	rbac         = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
	unheardOf    = "type.googleapis.com/io.istio.http.unheard_of.Config"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want proto.Message
		dropped  []string
	}{
		{
			"HTTP filters of telemetry go; authorization and what nobody has heard of stay, in their order",
			listener(t, httpFilter(t, "meta", peerMetadata), httpFilter(t, "rbac", rbac), httpFilter(t, "new", unheardOf)),
			listener(t, httpFilter(t, "rbac", rbac), httpFilter(t, "new", unheardOf)),
			[]string{"meta"},
		},
		{
			"a type in a TypedStruct counts as that type",
			listener(t, typed(t, "udpa", &udpav1.TypedStruct{TypeUrl: peerMetadata}), typed(t, "xds", &xdsv3.TypedStruct{TypeUrl: peerMetadata}), typed(t, "kept", &udpav1.TypedStruct{TypeUrl: rbac})),
			listener(t, typed(t, "kept", &udpav1.TypedStruct{TypeUrl: rbac})),
			[]string{"udpa", "xds"},
		},
		{
			"a cluster's filters, and a map of configurations",
			&clusterv3.Cluster{Name: "c", Filters: []*clusterv3.Filter{{Name: "exchange", TypedConfig: &anypb.Any{TypeUrl: exchange}}}},
			&clusterv3.Cluster{Name: "c"},
			[]string{"exchange"},
		},
		{
			"a route's configuration of a filter",
			&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Name: "v", TypedPerFilterConfig: map[string]*anypb.Any{"meta": {TypeUrl: peerMetadata}, "rbac": {TypeUrl: rbac}}}}},
			&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Name: "v", TypedPerFilterConfig: map[string]*anypb.Any{"rbac": {TypeUrl: rbac}}}}},
			[]string{"meta"},
		},
		{
			"filter state gets a factory that a stock Envoy has",
			listener(t, state(t, "io.istio.peer_principal", "istio.hashable_string"), state(t, "istio.double_hbone.hbone_target_address", ""), state(t, "envoy.string", "")),
			listener(t, state(t, "io.istio.peer_principal", hashable), state(t, "istio.double_hbone.hbone_target_address", hashable), state(t, "envoy.string", "")),
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var dropped []string
			f := &filter{drop: func(what string) { dropped = append(dropped, what) }}
			resource := pack(t, c.in)
			if err := f.resource(resource); err != nil {
				t.Fatal(err)
			}
			got, err := resource.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if !slices.Equal(dropped, c.dropped) {
				t.Errorf("dropped %q, want %q", dropped, c.dropped)
			}
		})
	}
}

func TestFilterLeavesUnknownResources(t *testing.T) {
	f := &filter{drop: func(what string) { t.Errorf("dropped %s", what) }}
	for _, in := range []*anypb.Any{nil, {TypeUrl: unheardOf, Value: []byte{1, 2, 3}}, {TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Value: []byte{0xff}}} {
		want := proto.Clone(in)
		if err := f.resource(in); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, proto.Message(in), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

// listener has an HTTP connection manager with filters.
func listener(t *testing.T, filters ...*hcm.HttpFilter) *listenerv3.Listener {
	return &listenerv3.Listener{Name: "l", FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		Name:       "hcm",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &hcm.HttpConnectionManager{HttpFilters: filters})},
	}}}}}
}

func httpFilter(t *testing.T, name, url string) *hcm.HttpFilter {
	t.Helper()
	return &hcm.HttpFilter{Name: name, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: url}}}
}

func typed(t *testing.T, name string, config proto.Message) *hcm.HttpFilter {
	t.Helper()
	return &hcm.HttpFilter{Name: name, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(t, config)}}
}

func state(t *testing.T, key, factory string) *hcm.HttpFilter {
	t.Helper()
	value := &setstate.FilterStateValue{
		Key: &setstate.FilterStateValue_ObjectKey{ObjectKey: key}, FactoryKey: factory,
		Value: &setstate.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: "%DOWNSTREAM_PEER_URI_SAN%"},
			}},
		}},
	}
	return typed(t, key, &httpstate.Config{OnRequestHeaders: []*setstate.FilterStateValue{value}})
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		t.Fatal(err)
	}
	return a
}
