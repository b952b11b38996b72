package node

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// serviceAccountPath is where in-cluster clients look for their token.
const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// serviceAccountVolume names the volume that the node adds for it.
const serviceAccountVolume = "service-account"

// volumes lays out a pod's volumes below dir and keeps them up to date. It is not safe for concurrent use.
type volumes struct {
	dir    string
	tokens *tokens
	caPEM  []byte // what the service account volume shows as ca.crt
}

// path is where the volume of that name lies.
func (v *volumes) path(name string) string { return filepath.Join(v.dir, name) }

// sync makes every volume of the pod show what it should by now. automount adds the service account's.
func (v *volumes) sync(ctx context.Context, f *podFacts, automount bool) error {
	for i := range f.pod.Spec.Volumes {
		vol := &f.pod.Spec.Volumes[i]
		if err := v.syncOne(ctx, f, vol); err != nil {
			return fmt.Errorf("volume %s: %w", vol.Name, err)
		}
	}
	if !automount {
		return nil
	}
	tok, err := v.tokens.get(ctx, f.pod, tokenKey{})
	if err != nil {
		return err
	}
	return writeAtomically(v.path(serviceAccountVolume), map[string]file{
		"token":     {[]byte(tok), 0o644},
		"ca.crt":    {v.caPEM, 0o644},
		"namespace": {[]byte(f.pod.Namespace), 0o644},
	})
}

func (v *volumes) syncOne(ctx context.Context, f *podFacts, vol *corev1.Volume) error {
	files := map[string]file{}
	var err error
	switch src := &vol.VolumeSource; {
	case src.EmptyDir != nil:
		return mkdirOpen(v.path(vol.Name))
	case src.ConfigMap != nil:
		err = addConfigMap(files, f.objects, src.ConfigMap.Name, src.ConfigMap.Items, src.ConfigMap.DefaultMode, isOptional(src.ConfigMap.Optional))
	case src.Secret != nil:
		err = addSecret(files, f.objects, src.Secret.SecretName, src.Secret.Items, src.Secret.DefaultMode, isOptional(src.Secret.Optional))
	case src.DownwardAPI != nil:
		err = addDownward(files, f, src.DownwardAPI.Items, src.DownwardAPI.DefaultMode)
	case src.Projected != nil:
		err = v.addProjected(ctx, files, f, src.Projected)
	case src.HostPath != nil:
		return refusedVolume("hostPath")
	default:
		return refusedVolume("this kind of volume")
	}
	if err != nil {
		return err
	}
	return writeAtomically(v.path(vol.Name), files)
}

// refusedVolume is the error of a volume that this node never plays.
type refusedVolume string

func (r refusedVolume) Error() string {
	return string(r) + " is refused: the node plays emptyDir, configMap, secret, downwardAPI and projected volumes"
}

func (v *volumes) addProjected(ctx context.Context, files map[string]file, f *podFacts, p *corev1.ProjectedVolumeSource) error {
	for _, src := range p.Sources {
		var err error
		switch {
		case src.ConfigMap != nil:
			err = addConfigMap(files, f.objects, src.ConfigMap.Name, src.ConfigMap.Items, p.DefaultMode, isOptional(src.ConfigMap.Optional))
		case src.Secret != nil:
			err = addSecret(files, f.objects, src.Secret.Name, src.Secret.Items, p.DefaultMode, isOptional(src.Secret.Optional))
		case src.DownwardAPI != nil:
			err = addDownward(files, f, src.DownwardAPI.Items, p.DefaultMode)
		case src.ServiceAccountToken != nil:
			t := src.ServiceAccountToken
			key := tokenKey{audience: t.Audience}
			if t.ExpirationSeconds != nil {
				key.seconds = *t.ExpirationSeconds
			}
			var tok string
			if tok, err = v.tokens.get(ctx, f.pod, key); err == nil {
				files[t.Path] = file{[]byte(tok), mode(nil, p.DefaultMode)}
			}
		default:
			return refusedVolume("this kind of projected source")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addConfigMap(files map[string]file, o objects, name string, items []corev1.KeyToPath, def *int32, optional bool) error {
	cm, err := o.configMap(name)
	if err != nil {
		if optional {
			return nil
		}
		return err
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, s := range cm.Data {
		data[k] = []byte(s)
	}
	return addKeys(files, "config map "+name, data, items, def, optional)
}

func addSecret(files map[string]file, o objects, name string, items []corev1.KeyToPath, def *int32, optional bool) error {
	s, err := o.secret(name)
	if err != nil {
		if optional {
			return nil
		}
		return err
	}
	return addKeys(files, "secret "+name, s.Data, items, def, optional)
}

func addKeys(files map[string]file, what string, data map[string][]byte, items []corev1.KeyToPath, def *int32, optional bool) error {
	if len(items) == 0 {
		for k, b := range data {
			files[k] = file{b, mode(nil, def)}
		}
		return nil
	}
	for _, it := range items {
		b, ok := data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s has no key %q", what, it.Key)
		}
		files[it.Path] = file{b, mode(it.Mode, def)}
	}
	return nil
}

func addDownward(files map[string]file, f *podFacts, items []corev1.DownwardAPIVolumeFile, def *int32) error {
	for _, it := range items {
		var v string
		var err error
		switch {
		case it.FieldRef != nil:
			v, err = f.field(it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			v, err = f.resource(it.ResourceFieldRef, &corev1.Container{})
		}
		if err != nil {
			return err
		}
		files[it.Path] = file{[]byte(v), mode(it.Mode, def)}
	}
	return nil
}

// mode is the item's file mode, else the volume's, else 0644.
func mode(item, def *int32) fs.FileMode {
	if item != nil {
		return fs.FileMode(*item).Perm()
	}
	if def != nil {
		return fs.FileMode(*def).Perm()
	}
	return 0o644
}

// mkdirOpen makes a folder that anybody may write to, whatever the umask.
func mkdirOpen(path string) error {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	return os.Chmod(path, 0o777)
}

// binds are the mounts of c's volumes. env expands subPathExpr.
func (v *volumes) binds(c *corev1.Container, env map[string]string, automount bool) ([]bind, error) {
	var list []bind
	for _, m := range c.VolumeMounts {
		b := bind{Source: v.path(m.Name), Target: filepath.Clean(m.MountPath), ReadOnly: m.ReadOnly}
		if sub := cmp.Or(m.SubPath, expand(m.SubPathExpr, env)); sub != "" {
			if !filepath.IsLocal(sub) {
				return nil, fmt.Errorf("mount %s: sub path %q leaves the volume", m.Name, sub)
			}
			b.Source = filepath.Join(b.Source, sub)
			if _, err := os.Stat(b.Source); err != nil {
				if err := mkdirOpen(b.Source); err != nil {
					return nil, fmt.Errorf("mount %s: %w", m.Name, err)
				}
			}
		}
		automount = automount && b.Target != serviceAccountPath
		list = append(list, b)
	}
	if automount {
		list = append(list, bind{Source: v.path(serviceAccountVolume), Target: serviceAccountPath, ReadOnly: true})
	}
	return list, nil
}
