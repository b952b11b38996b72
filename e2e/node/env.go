package node

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// objects reads what a pod refers to, in the pod's own namespace.
type objects interface {
	configMap(name string) (*corev1.ConfigMap, error)
	secret(name string) (*corev1.Secret, error)
}

// podFacts is what the downward API may tell beside the pod's own object.
type podFacts struct {
	pod          *corev1.Pod
	node         string
	ip, hostIP   netip.Addr
	allocMemory  int64 // bytes, where a container has no limit
	apiAddr      netip.AddrPort
	objects      objects
	serviceAcct  string
	imageDefault []string
}

// environ resolves the environment of c: the image's defaults, the API server, envFrom, env; later ones win.
func (f *podFacts) environ(c *corev1.Container) ([]string, map[string]string, error) {
	env := map[string]string{
		"PATH":                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":                    "/root",
		"HOSTNAME":                f.pod.Name,
		"KUBERNETES_SERVICE_HOST": f.apiAddr.Addr().String(),
		"KUBERNETES_SERVICE_PORT": strconv.Itoa(int(f.apiAddr.Port())),
	}
	for _, kv := range f.imageDefault {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for _, from := range c.EnvFrom {
		if err := f.envFrom(env, from); err != nil {
			return nil, nil, err
		}
	}
	for _, e := range c.Env {
		v, ok, err := f.envValue(e, c, env)
		if err != nil {
			return nil, nil, fmt.Errorf("env %s of container %s: %w", e.Name, c.Name, err)
		}
		if ok {
			env[e.Name] = v
		}
	}
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list, env, nil
}

func (f *podFacts) envFrom(env map[string]string, from corev1.EnvFromSource) error {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := f.objects.configMap(from.ConfigMapRef.Name)
		if err != nil && !isOptional(from.ConfigMapRef.Optional) {
			return err
		}
		if err == nil {
			for k, v := range cm.Data {
				env[from.Prefix+k] = v
			}
		}
	case from.SecretRef != nil:
		s, err := f.objects.secret(from.SecretRef.Name)
		if err != nil && !isOptional(from.SecretRef.Optional) {
			return err
		}
		if err == nil {
			for k, v := range s.Data {
				env[from.Prefix+k] = string(v)
			}
		}
	}
	return nil
}

// envValue resolves one variable; ok is false when an optional source is not there.
func (f *podFacts) envValue(e corev1.EnvVar, c *corev1.Container, env map[string]string) (v string, ok bool, err error) {
	if e.ValueFrom == nil {
		return expand(e.Value, env), true, nil
	}
	switch src := e.ValueFrom; {
	case src.FieldRef != nil:
		v, err = f.field(src.FieldRef.FieldPath)
		return v, err == nil, err
	case src.ResourceFieldRef != nil:
		v, err = f.resource(src.ResourceFieldRef, c)
		return v, err == nil, err
	case src.ConfigMapKeyRef != nil:
		cm, err := f.objects.configMap(src.ConfigMapKeyRef.Name)
		if err == nil {
			if v, ok = cm.Data[src.ConfigMapKeyRef.Key]; ok {
				return v, true, nil
			}
			err = fmt.Errorf("config map %s has no key %q", cm.Name, src.ConfigMapKeyRef.Key)
		}
		if isOptional(src.ConfigMapKeyRef.Optional) {
			return "", false, nil
		}
		return "", false, err
	case src.SecretKeyRef != nil:
		s, err := f.objects.secret(src.SecretKeyRef.Name)
		if err == nil {
			if b, ok := s.Data[src.SecretKeyRef.Key]; ok {
				return string(b), true, nil
			}
			err = fmt.Errorf("secret %s has no key %q", s.Name, src.SecretKeyRef.Key)
		}
		if isOptional(src.SecretKeyRef.Optional) {
			return "", false, nil
		}
		return "", false, err
	}
	return "", false, fmt.Errorf("the node does not play this source")
}

// field is the value of a downward API field path.
func (f *podFacts) field(path string) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return f.pod.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return f.pod.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return f.pod.Name, nil
	case "metadata.namespace":
		return f.pod.Namespace, nil
	case "metadata.uid":
		return string(f.pod.UID), nil
	case "metadata.labels":
		return formatMap(f.pod.Labels), nil
	case "metadata.annotations":
		return formatMap(f.pod.Annotations), nil
	case "spec.nodeName":
		return f.node, nil
	case "spec.serviceAccountName":
		return f.serviceAcct, nil
	case "status.hostIP", "status.hostIPs":
		return f.hostIP.String(), nil
	case "status.podIP", "status.podIPs":
		return f.ip.String(), nil
	}
	return "", fmt.Errorf("unknown field path %q", path)
}

// subscript reads key from path of the form of['key'].
func subscript(path, of string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(path, of+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// formatMap writes a map the way the downward API does in files.
func formatMap(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s=%s", k, strconv.Quote(m[k]))
	}
	return b.String()
}

// resource is a container's limit or request in units of the divisor, rounded up.
func (f *podFacts) resource(ref *corev1.ResourceFieldSelector, c *corev1.Container) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		c = nil
		for i := range f.pod.Spec.Containers {
			if f.pod.Spec.Containers[i].Name == ref.ContainerName {
				c = &f.pod.Spec.Containers[i]
			}
		}
		if c == nil {
			return "", fmt.Errorf("no container %q", ref.ContainerName)
		}
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var q resource.Quantity
	var have bool
	switch kind {
	case "limits":
		q, have = c.Resources.Limits[corev1.ResourceName(name)]
	case "requests":
		q, have = c.Resources.Requests[corev1.ResourceName(name)]
	default:
		return "", fmt.Errorf("unknown resource %q", ref.Resource)
	}
	if !have && kind == "limits" {
		switch name {
		case "cpu":
			q = *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI)
		case "memory":
			q = *resource.NewQuantity(f.allocMemory, resource.BinarySI)
		}
	}
	div := ref.Divisor
	if div.IsZero() {
		div = *resource.NewQuantity(1, resource.DecimalSI)
	}
	if name == "cpu" {
		return strconv.FormatInt(int64(math.Ceil(float64(q.MilliValue())/float64(div.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(q.Value())/float64(div.Value()))), 10), nil
}

// expand replaces $(NAME) by env's value; $$ stands for $, and an unknown name stays as written.
func expand(s string, env map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := s[i+2 : i+end]
			if v, ok := env[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func isOptional(p *bool) bool { return p != nil && *p }
