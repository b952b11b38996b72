package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// idle finds what keeps a switch from doing anything: settings of the controller, its version, a mode.
func (m *maker) idle(g *gateway, s *edge.Switch) {
	v := &g.vendor
	if n := v.NotNative; n != nil && len(g.pods) > 0 && g.capture != v1alpha1.CaptureNative {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingSwitchIdle, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.infrastructure.parametersRef", Message: n.Why, Fix: n.Fix,
		})
	}
	for i := range v.Needs {
		m.need(g, &v.Needs[i])
	}
	if s.Since == "" {
		return
	}
	f := v1alpha1.Finding{Code: v1alpha1.FindingSwitchIdle, Severity: v1alpha1.SeverityError, Object: g.String(), Field: s.Field()}
	soon := ""
	if s.Unreleased {
		soon = ", which was not released when this Isthmus was"
	}
	switch is := m.version(v); {
	case is == "" && !s.Unreleased:
		return // it is old enough to be there
	case is == "":
		f.Severity = v1alpha1.SeverityInfo
		f.Message = fmt.Sprintf("%s of %s exists since %s%s; nothing here tells which version runs. An API server that does not know the field refuses it before anything is written", s.Field(), s.Kind.Kind, s.Since, soon)
	case edge.Before(is, s.Since):
		f.Message = fmt.Sprintf("%s %s has no %s in %s: it exists since %s%s", v.Name, is, s.Field(), s.Kind.Kind, s.Since, soon)
		f.Fix = fmt.Sprintf("upgrade to %s, or set spec.waypoint.policy to None", s.Since)
	default:
		return
	}
	m.found(f)
}

// need finds a setting of the controller that is not as it must be.
func (m *maker) need(g *gateway, n *edge.Setting) {
	f := v1alpha1.Finding{Code: v1alpha1.FindingSwitchIdle, Severity: v1alpha1.SeverityError, Field: "env " + n.Env, Fix: n.Fix}
	list := m.controllers(&g.vendor)
	for _, w := range list {
		is, set, known := w.env(n.Env)
		if !set {
			is = n.Default
		}
		switch f.Object = w.String(); {
		case known && is != n.Want:
			f.Message = fmt.Sprintf("%s is %q, and must be %q: %s", n.Env, is, n.Want, n.Why)
			if !set {
				f.Message = fmt.Sprintf("%s is not set, its default is %q, and it must be %q: %s", n.Env, is, n.Want, n.Why)
			}
			m.found(f)
		case !known && n.Default != n.Want:
			m.unseen(f, n, "its value is not in the pod template")
		}
	}
	if len(list) == 0 && n.Default != n.Want {
		f.Object = g.String()
		m.unseen(f, n, "its controller is not in this cluster, or not known by its image")
	}
}

func (m *maker) unseen(f v1alpha1.Finding, n *edge.Setting, why string) {
	f.Severity = v1alpha1.SeverityInfo
	f.Message = fmt.Sprintf("whether %s is %q cannot be seen: %s. If it is not, %s", n.Env, n.Want, why, n.Why)
	if !slices.Contains(m.plan.Findings, f) {
		m.found(f)
	}
}

// headless finds a Service that has no address by which its waypoint could be chosen.
func (m *maker) headless(b *backend) {
	var what string
	switch {
	case b.service.Spec.Type == "ExternalName":
		what = "is a name for something else"
	case b.service.Spec.ClusterIP == "None":
		what = "is headless"
	default:
		return
	}
	why := "a waypoint is chosen by a Service's address"
	for _, g := range m.gateways {
		if g.vendor.Headless != "" {
			why = g.vendor.Headless
			break
		}
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingHeadless, Severity: v1alpha1.SeverityError, Object: b.String(), Field: "spec.clusterIP",
		Message: fmt.Sprintf("this Service %s, and cannot lead to a waypoint: %s", what, why),
		Fix:     "let the route name a Service with a cluster IP for the same pods, or set spec.waypoint.policy to None",
	})
}

// losses finds features in use that one address in place of many pods takes away.
func (m *maker) losses(g *gateway, b *backend) {
	if len(g.vendor.Switches) == 0 {
		return
	}
	for i := range g.vendor.Loses {
		l := &g.vendor.Loses[i]
		for _, o := range m.used(g, b, l.Kind) {
			found := leaves(reflect.ValueOf(o.object), l.Path)
			if len(found) == 0 || l.Value != "" && !slices.Contains(found, l.Value) {
				continue
			}
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingLoss, Severity: v1alpha1.SeverityWarning, Object: o.name, Field: edge.Field(l.Path),
				Message: fmt.Sprintf("this has no effect for %s any more when %s sends to its address: %s", b, g, l.What),
				Fix:     "do without, or leave this Service without a waypoint",
			}
			if !slices.Contains(m.plan.Findings, f) {
				m.found(f)
			}
		}
	}
}

// use is an object by which a gateway sends, with or without its type, and its name.
type use struct {
	name   string
	object any
}

// used are the objects of a kind by which a gateway sends to a Service.
func (m *maker) used(g *gateway, b *backend, kind string) []use {
	var list []use
	switch kind {
	case "Service":
		list = append(list, use{b.String(), b.service})
	case "HTTPRoute":
		for _, f := range m.follow() {
			if f.gateway == g && f.kind == kind && f.sendsTo(b) {
				list = append(list, use{f.String(), f.object})
			}
		}
	case "Ingress":
		for _, in := range m.ingresses(g) {
			if slices.Contains(servicesOfIngress(in), b.key) {
				list = append(list, use{object(kind, keyOf(in)), in})
			}
		}
	default: // policies of the vendor, for the gateway, its routes, or the Service
		for _, o := range m.Objects {
			if o.GetKind() == kind && (m.narrower(g, o, true) || o.GetNamespace() == b.key.Namespace && targeted(o, "Service", b.key.Name)) {
				list = append(list, use{object(kind, keyOf(o)), o.Object})
			}
		}
	}
	return list
}

// leaves are the values at the end of a path through structs by the names of their JSON, maps and lists, as text. What would be left out of JSON is not there.
// Of typed objects only what is on the path is read: all fields of all Services would be many.
func leaves(v reflect.Value, path []string) []string {
	switch v.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return leaves(v.Elem(), path)
	case reflect.Slice:
		var list []string
		for i := range v.Len() {
			list = append(list, leaves(v.Index(i), path)...)
		}
		return list
	case reflect.Map:
		if len(path) > 0 {
			return leaves(v.MapIndex(reflect.ValueOf(path[0]).Convert(v.Type().Key())), path[1:])
		}
	case reflect.Struct:
		if len(path) > 0 {
			return leaves(jsonField(v, path[0]), path[1:])
		}
	}
	if len(path) > 0 {
		return nil
	}
	return []string{fmt.Sprint(v.Interface())}
}

// jsonField is a field of a struct by its name in JSON. It is invalid where there is none, or JSON leaves it out.
func jsonField(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, how, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "" && field.Type.Kind() == reflect.Struct:
			if in := jsonField(v.Field(i), key); in.IsValid() {
				return in
			}
		case name == key:
			if strings.Contains(how, "omitempty") && v.Field(i).IsZero() {
				return reflect.Value{}
			}
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// warn tells what everybody should know of a kind of gateway, and whom else it serves.
func (m *maker) warn(g *gateway) {
	for _, w := range g.vendor.Warnings {
		m.found(v1alpha1.Finding{Code: v1alpha1.FindingVendor, Severity: v1alpha1.SeverityWarning, Object: g.String(), Message: w})
	}
	if !g.vendor.Proxies.Shared && g.merged == nil || g.object == nil {
		return
	}
	others := 0
	for i := range m.Gateways {
		o := &m.Gateways[i]
		same := o.Spec.GatewayClassName == g.object.Spec.GatewayClassName
		if g.merged == nil {
			same = edge.ByController(m.controllerOf(o.Spec.GatewayClassName)).Name == g.vendor.Name
		}
		if same && keyOf(o) != g.key {
			others++
		}
	}
	if others > 0 {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingShared, Severity: v1alpha1.SeverityInfo, Object: g.String(), Field: "spec.gatewayClassName",
			Message: fmt.Sprintf("the pods of this gateway serve other Gateways too, %d in number: all are in the mesh together, and policies see one identity", others),
		})
	}
}
