package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestReadmeShowsWhatIsFound: README's example of isthmus check is all that it says, but for the time that it takes.
func TestReadmeShowsWhatIsFound(t *testing.T) {
	t.Chdir(repoRoot)
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin = "```console\n$ bin/isthmus check "
	before, rest, ok := strings.Cut(string(text), begin)
	args, rest, ok2 := strings.Cut(rest, "\n")
	shown, after, ok3 := strings.Cut(rest, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("README does not show isthmus check")
	}
	r := isthmus(t, append([]string{"check"}, strings.Fields(args)...)...)
	took := regexp.MustCompile(` in \d+\.\d s`)
	got := took.ReplaceAllString(r.stdout, " in 0.0 s") + r.stderr
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+args+"\n"+got+"```"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := took.ReplaceAllString(shown, " in 0.0 s"); got != want || r.code != exitFailed {
		t.Errorf("exit code %d; README shows\n%s\nand it says\n%s", r.code, want, got)
	}
}

// TestReadmeListsTheCommands: but those that every program has, and the controller, which is told of above them.
func TestReadmeListsTheCommands(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "- **A command**")
	line, _, _ = strings.Cut(line, "\n")
	for _, c := range newRoot(&app{getenv: os.Getenv}).Commands() {
		switch c.Name() {
		case "completion", "controller", "help", "version":
			continue
		}
		if !strings.Contains(line, "`"+c.Name()+"`") && !strings.Contains(line, "`isthmus "+c.Name()+"`") {
			t.Errorf("README does not list isthmus %s", c.Name())
		}
	}
}

// TestReadmeIsShort: people read it.
func TestReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("README has %d lines", n)
	}
}

// TestReadmeProgramFindsWhatItReads: what README's program reads of its environment is there in the Pod that hbone's README has for it, and in the pods of
// the demo's native gateway; and who it is comes from there alone.
func TestReadmeProgramFindsWhatItReads(t *testing.T) {
	read := func(file string) string {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, program, _ := strings.Cut(read("README.md"), "```go\n")
	program, _, ok := strings.Cut(program, "```")
	_, pod, _ := strings.Cut(read("hbone/README.md"), "```yaml\n")
	pod, _, ok2 := strings.Cut(pod, "```")
	if !ok || !ok2 {
		t.Fatal("there is no program, or no Pod")
	}
	var one corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(pod), &one); err != nil {
		t.Fatal(err)
	}
	var demo appsv1.Deployment
	for _, text := range strings.Split(read("e2e/story/manifests/edge.yaml"), "\n---\n") {
		var o appsv1.Deployment
		if yaml.Unmarshal([]byte(text), &o) == nil && o.Kind == "Deployment" && o.Name == "native-gateway" {
			demo = o
		}
	}
	reads := regexp.MustCompile(`os\.Getenv\("(\w+)"\)`).FindAllStringSubmatch(program, -1)
	if len(reads) < 3 || strings.Contains(program, "/sa/gateway") {
		t.Errorf("the program reads %q, or says by itself who it is", reads)
	}
	for where, spec := range map[string]corev1.PodSpec{"the Pod": one.Spec, "native-gateway": demo.Spec.Template.Spec} {
		for _, name := range reads {
			if len(spec.Containers) != 1 || !slices.ContainsFunc(spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == name[1] && e.ValueFrom != nil }) {
				t.Errorf("%s has no %s", where, name[1])
			}
		}
	}
}
