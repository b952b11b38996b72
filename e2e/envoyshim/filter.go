package envoyshim

import (
	"fmt"
	"slices"
	"strings"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	// The messages that the filter looks into; others pass as they are.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	setstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
)

// dropped are the extensions of Istio's build that only make telemetry, by a part of their type URL.
func dropped() []string {
	return []string{"io.istio.http.peer_metadata.", "MetadataExchange", "istio.envoy.config.filter.http.alpn.", "stats.PluginConfig"}
}

// filter changes what a stock Envoy cannot read.
type filter struct {
	drop func(what string) // told of everything that is left out
}

// resource rewrites an xDS resource.
func (f *filter) resource(a *anypb.Any) error {
	if a == nil {
		return nil
	}
	_, err := f.any(a)
	return err
}

// any rewrites what is in a, and says whether it is to be dropped.
func (f *filter) any(a *anypb.Any) (drop bool, err error) {
	if f.isDropped(a.GetTypeUrl()) {
		return true, nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return false, nil //nolint:nilerr // a type that we do not know has nothing of what we look for
	}
	switch s := m.(type) {
	case *xdsv3.TypedStruct:
		return f.isDropped(s.GetTypeUrl()), nil
	case *udpav1.TypedStruct:
		return f.isDropped(s.GetTypeUrl()), nil
	}
	if err := f.message(m.ProtoReflect()); err != nil {
		return false, fmt.Errorf("%s: %w", a.GetTypeUrl(), err)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return false, err
	}
	a.Value = value
	return false, nil
}

func (f *filter) isDropped(url string) bool {
	return slices.ContainsFunc(dropped(), func(part string) bool { return strings.Contains(url, part) })
}

// message rewrites everything below m. Elements of lists and maps that hold something to drop are dropped with it.
func (f *filter) message(m protoreflect.Message) error {
	if v, ok := m.Interface().(*setstate.FilterStateValue); ok {
		f.factory(v)
	}
	var failed error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			failed = f.entries(v.Map())
		case fd.IsList() && fd.Message() != nil:
			failed = f.list(v.List())
		case !fd.IsMap() && !fd.IsList() && fd.Message() != nil:
			failed = f.single(v.Message())
		}
		return failed == nil
	})
	return failed
}

// single rewrites a message that stands alone. It cannot be dropped.
func (f *filter) single(m protoreflect.Message) error {
	a, ok := m.Interface().(*anypb.Any)
	if !ok {
		return f.message(m)
	}
	_, err := f.any(a)
	return err
}

func (f *filter) entries(entries protoreflect.Map) error {
	var failed error
	var gone []protoreflect.MapKey
	entries.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		var drop bool
		if drop, failed = f.element(v.Message()); drop {
			gone = append(gone, k)
		}
		return failed == nil
	})
	for _, k := range gone {
		f.drop(k.String())
		entries.Clear(k)
	}
	return failed
}

func (f *filter) list(list protoreflect.List) error {
	kept := 0
	for i := range list.Len() {
		drop, err := f.element(list.Get(i).Message())
		if err != nil {
			return err
		}
		if drop {
			f.drop(name(list.Get(i).Message()))
			continue
		}
		list.Set(kept, list.Get(i))
		kept++
	}
	list.Truncate(kept)
	return nil
}

// element rewrites an element, and says whether it is to be dropped: when it is an Any to drop, or an extension with one.
func (f *filter) element(m protoreflect.Message) (drop bool, err error) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return f.any(a)
	}
	if fd := m.Descriptor().Fields().ByName("typed_config"); fd != nil && fd.Message() != nil && m.Has(fd) {
		if a, ok := m.Get(fd).Message().Interface().(*anypb.Any); ok {
			if drop, err = f.any(a); drop || err != nil {
				return drop, err
			}
		}
	}
	return false, f.message(m)
}

// name is the name of an extension.
func name(m protoreflect.Message) string {
	if fd := m.Descriptor().Fields().ByName("name"); fd != nil && fd.Kind() == protoreflect.StringKind {
		return m.Get(fd).String()
	}
	return string(m.Descriptor().FullName())
}

// hashable is the stock factory of strings that keep connection pools of different values apart.
const hashable = "envoy.hashable_string"

// factory gives a filter state a factory that a stock Envoy has.
func (f *filter) factory(v *setstate.FilterStateValue) {
	key := v.GetObjectKey()
	switch {
	case v.GetFactoryKey() == "istio.hashable_string":
	case v.GetFactoryKey() == "" && (strings.HasPrefix(key, "istio.") || strings.HasPrefix(key, "io.istio.")):
	default:
		return
	}
	v.FactoryKey = hashable
}
