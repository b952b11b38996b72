package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// The size of what is read in tests of scale. What make scale asks for is 5000 and 50000.
var (
	largeNamespaces = flag.Int("namespaces", 40, "how many namespaces of 100 objects a cluster has")
	largeDocuments  = flag.Int("documents", 2000, "how many objects are in files")
)

// asCommand is the environment variable that has this test's program be the command, so that its memory is not that of the fake API server, and what it sets for
// its whole process is nobody else's.
const asCommand = "ISTHMUS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	flag.Parse()
	os.Exit(m.Run())
}

// measured is what a command said, what it took, and how much memory it had at most.
type measured struct {
	doc  checkDocument
	took time.Duration
	cpu  time.Duration // of all processors
	rss  int64         // bytes
}

// measure runs isthmus check in a process of its own.
func measure(t *testing.T, args ...string) (m measured) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"check", "-o", "json", "--fail-on", "never"}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	peak := peakOf(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("isthmus check: %v\n%s", err, said.String())
	}
	m.took = time.Since(begin)
	m.rss = peak()
	m.doc = decode[checkDocument](t, out.String())
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.Logf("%d objects, %d checks: %.1f s, %.1f s of a processor, %d MB; %d errors, %d warnings, %d infos",
		m.doc.Counts.Objects, m.doc.Counts.Checks, m.took.Seconds(), m.cpu.Seconds(), m.rss>>20, m.doc.Counts.Errors, m.doc.Counts.Warnings, m.doc.Counts.Infos)
	return m
}

// peakOf follows the most memory that a process has had, in bytes, until it ends; the function gives it then. What the system says of one that has ended counts
// in the memory of the process that began it.
func peakOf(pid int) func() int64 {
	var kB int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, after, found := strings.Cut(string(status), "VmHWM:")
			if err != nil || !found { // it is gone, or has ended
				return
			}
			if _, err := fmt.Sscan(after, &kB); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() int64 {
		<-done
		return kB << 10
	}
}

// within says whether it was as quick and small as is promised, of a share of the largest world that promises are made for: 30 seconds and 1 GB. Of a small
// share what counts is the time of processors, as the machine may be busy, and the program itself takes something, much of it with the race detector. Beside
// others even that grows, as two threads share a core: then it is not judged here.
func (m *measured) within(t *testing.T, share float64) {
	t.Helper()
	took, limit := m.took, 30*time.Second
	if share < 1 {
		took, limit = m.cpu, time.Duration((3+60*share)*float64(time.Second))
	}
	if seen := fmt.Sprintf("isthmus check takes %v at most: it took %v", limit, took.Round(10*time.Millisecond)); took > limit && judged(t, seen) {
		t.Error(seen)
	}
	if limit := min(int64(320<<20+share*float64(1<<30)), 1<<30); m.rss > limit || m.rss == 0 {
		t.Errorf("it had %d MB, at most %d are allowed", m.rss>>20, limit>>20)
	}
}

// well says that nothing is wrong in what was read.
func (m *measured) well(t *testing.T) {
	t.Helper()
	seen := map[string]int{}
	for i := range m.doc.Findings {
		f := &m.doc.Findings[i]
		if seen[f.Code]++; f.Severity != v1alpha1.SeverityInfo && seen[f.Code] == 1 {
			t.Errorf("it is well, and there is %s at %s: %s", f.Code, f.Object, f.Message)
		}
	}
	t.Log(seen)
}

// TestALargeClusterIsChecked: by a page at a time, in bounded time and memory.
func TestALargeClusterIsChecked(t *testing.T) {
	c := largeCluster(*largeNamespaces)
	c.start(t)
	args := []string{"--timeout", "5m"}
	m := measure(t, args...)
	m.within(t, float64(*largeNamespaces)/5000)
	// EndpointSlices that Services' controller makes are not asked for.
	if want := *largeNamespaces * (largeEach - largeSlices); m.doc.Counts.Objects < want {
		t.Errorf("%d objects were read, there are %d", m.doc.Counts.Objects, want)
	}
	m.well(t)
}

// TestManyFilesAreChecked: a folder of the objects of the same cluster.
func TestManyFilesAreChecked(t *testing.T) {
	dir := t.TempDir()
	written := 0
	c := largeCluster(max(1, *largeDocuments/largeEach))
	files := map[string]*strings.Builder{}
	for _, k := range c.kinds {
		for i := range k.n {
			o := k.at(i)
			o.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.kind))
			u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				t.Fatal(err)
			}
			delete(u, "status")
			meta, _ := u["metadata"].(map[string]any)
			for _, field := range []string{"managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "ownerReferences", "annotations"} {
				delete(meta, field)
			}
			text, err := yaml.Marshal(u)
			if err != nil {
				t.Fatal(err)
			}
			ns, _ := meta["namespace"].(string)
			if files[ns] == nil {
				files[ns] = &strings.Builder{}
			}
			fmt.Fprintf(files[ns], "---\n%s", text)
			written++
		}
	}
	for ns, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "ns-"+ns+".yaml"), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := measure(t, "-f", dir)
	m.within(t, float64(written)/50000)
	if m.doc.Counts.Objects != written {
		t.Errorf("%d objects were read, there are %d", m.doc.Counts.Objects, written)
	}
	m.well(t)
}
