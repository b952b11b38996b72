package rules

import (
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const groupGateway = "gateway.networking.k8s.io"

// learn notes what policies may be attached to: the gateway, its ListenerSets, its routes, and the Services that these name.
func (r *reader) learn() {
	r.known, r.backends = map[Ref]map[string]any{}, map[Ref]bool{}
	if r.gateway.Name != "" {
		r.known[r.gateway.Ref] = r.gateway.Object
	}
	for _, ref := range r.gateway.ListenerSets {
		r.known[ref] = r.content(ref)
	}
	for _, route := range r.routes {
		r.known[route.Ref] = route.Object
		for _, ref := range backendsOf(route) {
			if _, there := r.known[ref]; !there {
				r.known[ref] = r.content(ref)
			}
			r.backends[ref] = true
		}
	}
	r.near = map[string][]Ref{}
	for ref := range r.known {
		r.near[ref.Namespace] = append(r.near[ref.Namespace], ref)
	}
	for _, list := range r.near {
		slices.SortFunc(list, compareRefs)
	}
}

// namespaces are those of what is known.
func (r *reader) namespaces() []string { return slices.Sorted(maps.Keys(r.near)) }

// attach reads the policies of a kind that are attached to what is known.
func (r *reader) attach(p *policy) {
	for _, namespace := range r.namespaces() {
		for _, o := range r.list(p.kind, namespace) {
			r.policy(p, namespace, o)
		}
	}
	if !p.far {
		return
	}
	for _, o := range r.list(p.kind, "") {
		if r.near[o.GetNamespace()] == nil && selectsFar(o.Object) {
			r.policy(p, o.GetNamespace(), o)
		}
	}
}

// selectsFar says whether a policy selects objects of other namespaces than its own.
func selectsFar(object map[string]any) bool {
	spec, _ := object["spec"].(map[string]any)
	list, _ := spec["targetSelectors"].([]any)
	return slices.ContainsFunc(list, func(e any) bool {
		m, _ := e.(map[string]any)
		return m["namespaces"] != nil
	})
}

// policy reads one, if it is attached to something that is known.
func (r *reader) policy(p *policy, namespace string, o *unstructured.Unstructured) {
	d := r.doc(Ref{p.kind.Group, p.kind.Kind, namespace, o.GetName()}, o.Object)
	spec := d.spec(o.Object)
	if d.targets = r.targets(spec, namespace); len(d.targets) == 0 {
		return
	}
	if !p.all {
		d.how.family, d.how.merges = p.kind.Kind, p.merges
	}
	p.read(r, d, spec)
	r.take(d)
}

// targets are what targetRefs, targetRef and targetSelectors of a policy name.
func (r *reader) targets(spec *fields, namespace string) []Target {
	var list []Target
	refs := spec.each("targetRefs")
	if one := spec.sub("targetRef"); one != nil {
		refs = append(refs, one)
	}
	for _, ref := range refs {
		t := Target{Object: Ref{normalGroup(ref.str("group")), ref.str("kind"), namespace, ref.str("name")}, Section: ref.str("sectionName")}
		if ns := ref.str("namespace"); ns != "" {
			t.Object.Namespace = ns
		}
		port, some := ref.number("port")
		if object, there := r.known[t.Object]; there {
			if t.Section, there = section(t.Object.Kind, object, t.Section); there && some {
				list = append(list, r.atPort(ref, t, port)...)
			} else if there {
				list = append(list, t)
			}
		}
	}
	for _, s := range spec.each("targetSelectors") {
		list = append(list, r.selected(s, namespace)...)
	}
	return list
}

// atPort are the parts of a target at a port.
func (r *reader) atPort(ref *fields, t Target, port int) []Target {
	if t.Object != r.gateway.Ref {
		return []Target{{Object: t.Object, Section: strconv.Itoa(port)}}
	}
	var list []Target
	for _, name := range r.listenersAt(port) {
		list = append(list, Target{Object: t.Object, Section: name})
	}
	if len(list) == 0 {
		ref.unsure("port") // its listeners are not known
		list = append(list, t)
	}
	return list
}

// selected are the objects with labels that a targetSelector wants. One that says more than labels may mean fewer of them, or others.
func (r *reader) selected(s *fields, namespace string) []Target {
	group, kind, labels := normalGroup(s.str("group")), s.str("kind"), s.sub("matchLabels")
	if group == "" && (kind == "Gateway" || isRoute(kind)) {
		group = groupGateway
	}
	far := s.has("namespaces")
	if far {
		s.unsure("namespaces") // a ReferenceGrant decides
	}
	want := map[string]string{}
	for _, key := range labels.names() {
		want[key] = labels.str(key)
	}
	name := s.str("sectionName")
	if s.has("port") {
		s.unsure("port")
	}
	namespaces := []string{namespace}
	if far {
		namespaces = r.namespaces()
	}
	var list []Target
	for _, ns := range namespaces {
		for _, ref := range r.near[ns] {
			object := r.known[ref]
			if ref.Group != group || ref.Kind != kind || !hasLabels(object, want) {
				continue
			}
			if at, there := section(kind, object, name); there {
				list = append(list, Target{Object: ref, Section: at})
			}
		}
	}
	return list
}

// normalGroup is a group as Ref has it: some write core for Kubernetes' own.
func normalGroup(group string) string {
	if group == "core" {
		return ""
	}
	return group
}

func hasLabels(object map[string]any, want map[string]string) bool {
	meta, _ := object["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// section is the section that a sectionName means: of a route, the rule of that name. It reports whether there is one.
func section(kind string, object map[string]any, name string) (string, bool) {
	if name == "" || !isRoute(kind) {
		return name, true
	}
	spec, _ := object["spec"].(map[string]any)
	rules, _ := spec["rules"].([]any)
	for i, e := range rules {
		if m, ok := e.(map[string]any); ok && m["name"] == name {
			return ruleSection(i), true
		}
	}
	return "", false
}

func isRoute(kind string) bool {
	return slices.Contains([]string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"}, kind)
}
