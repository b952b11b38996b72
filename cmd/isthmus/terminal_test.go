package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// everyCommand is root with all commands below it.
func everyCommand(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		all = append(all, everyCommand(c)...)
	}
	return all
}

// longName is a name as long as Kubernetes allows for labels.
var longName = strings.Repeat("a-name-that-is-long-", 3) + "abc"

// shows are the tables and texts of each command, with names that are short and long.
func shows(t *testing.T, name string) map[string]func(*page) error {
	e := anEdge()
	e.Name, e.Status.Gateways[0].Name = name, "Deployment/"+name
	e.Status.Backends[0].Service, e.Status.Plan.Steps[0].Object, e.Status.Findings[0].Object = "shop/"+name, "Deployment edge/"+name, "Gateway shop/"+name
	edge := &v1alpha1.AmbientEdge{}
	if err := strict([]byte(edgeYAML), edge); err != nil {
		t.Fatal(err)
	}
	planned := newPlanDocument(edge, &plan.Snapshot{Edge: edge, Namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}}}, nil)
	seen := observed()
	seen.Gateways[1].Name = name
	finding := checkFinding{Code: "ISM201", Severity: v1alpha1.SeverityError, Object: checkObject{Kind: "Service", Namespace: "shop", Name: name},
		Message: strings.Repeat("nobody gets through, ", 9), Fix: strings.Repeat("take it away, ", 9)}
	matrix := &matrixDocument{Cells: []matrixCell{{From: "gateway edge/" + name, To: "shop/" + name + ":80", Verdict: "allow", Path: "gateway, waypoint, pods", Why: strings.Repeat("a policy allows it ", 5)}}}
	route := &routeDetail{Transport: "hbone", Service: "shop/" + name, Hops: []hopDetail{{Kind: string(hbone.HopWaypoint), Name: "shop/" + name, Address: "10.0.0.1:15008", Authority: "10.96.0.1:80", Peers: []string{"spiffe://cluster.local/ns/shop/sa/" + name}}},
		Reason: []string{strings.Repeat("a label says so ", 8)}}
	read := &inspectDocument{Gateways: []inspectedGateway{{
		Kind: "Gateway", Namespace: "edge", Name: name, Vendor: "kgateway", Pods: []inspectedPod{{Namespace: "edge", Name: name}, {Namespace: "edge", Name: name + "-1"}},
		Backends: []inspectedBackend{{Service: "shop/" + name, Waypoint: "shop/waypoint", Switch: "service", Result: notInForce, Seen: []inspectedWay{
			{Pods: []string{"edge/" + name}, Result: inForce, Sends: "address", To: []string{"10.96.0.7:80"}},
			{Pods: []string{"edge/" + name + "-1"}, Result: notInForce, Sends: "pods", To: []string{"10.244.1.7:8080", "10.244.1.8:8080"}},
		}}},
	}}}
	return map[string]func(*page) error{
		"isthmus": nil, "isthmus help": nil, "isthmus completion": nil, "isthmus version": nil, "isthmus controller": nil, // they show no objects
		"isthmus apply": func(p *page) error {
			return p.table([]string{"OBJECT", "FIELD", "THEN", "NOW"}, [][]cell{cells("Service shop/"+name, "metadata.labels[istio.io/use-waypoint]", "waypoint", strings.Repeat("another ", 9))})
		},
		"isthmus check":   func(p *page) error { return (&checkDocument{Findings: []checkFinding{finding}}).print(p) },
		"isthmus dial":    func(p *page) error { return route.print(p, name+".shop.svc.cluster.local:80") },
		"isthmus explain": func(p *page) error { return matrix.print(p) },
		"isthmus inspect": read.print,
		"isthmus observe": func(p *page) error {
			return newObserveDocument(seen, func(*plan.Candidate) bool { return true }).print(p)
		},
		"isthmus plan": planned.print,
		"isthmus status": func(p *page) error {
			if err := (&statusDocument{Edges: []edgeStatus{e}}).print(p, time.Unix(2000, 0)); err != nil {
				return err
			}
			return e.print(p)
		},
	}
}

// TestWhatCommandsShowFitsTheTerminal: only a word that is wider than what is left for it, and a command to be copied, is left for the terminal to break.
func TestWhatCommandsShowFitsTheTerminal(t *testing.T) {
	for _, name := range []string{"public", longName} {
		all := shows(t, name)
		for _, cmd := range everyCommand(newRoot(&app{})) {
			show, is := all[cmd.CommandPath()]
			if !is {
				t.Errorf("%s: nobody looks whether what it shows fits a terminal: say here what it shows", cmd.CommandPath())
			}
			for _, width := range []int{40, 60, 80, 120} {
				if show == nil {
					continue
				}
				var out bytes.Buffer
				if err := show(&page{w: &out, width: width}); err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(out.String()) {
					line = strings.TrimSuffix(line, "\n")
					words := strings.Fields(line)
					longest := 0
					for _, w := range words {
						longest = max(longest, utf8.RuneCountInString(w))
					}
					if n := utf8.RuneCountInString(line); n > width && longest <= width-lastRoom && !strings.Contains(line, "kubectl") {
						t.Errorf("%s: %d columns, the terminal has %d: %q", cmd.CommandPath(), n, width, line)
					}
				}
				if strings.Contains(cmd.CommandPath(), "check") {
					continue
				}
				if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, "public") && !strings.Contains(text, longName) && cmd.Name() != "plan" {
					t.Errorf("%s, %d columns: the name is not shown whole:\n%s", cmd.CommandPath(), width, out.String())
				}
			}
		}
	}
}

// TestEveryFlagCompletesWhatItCan: files, names of the cluster, and words of a list. What is left is free: only the user knows it.
func TestEveryFlagCompletesWhatItCan(t *testing.T) {
	free := strings.Fields("HOST:PORT NAME DOMAIN DOMAIN=FILE ADDRESS REVISION ID HINT HOST PATH NAME=VALUE NAME:VALUE CLAIM=VALUE IP:PORT ADDR NAMESPACE/NAME duration int")
	for _, cmd := range everyCommand(newRoot(&app{getenv: os.Getenv})) {
		if cmd.Args != nil && strings.ContainsAny(cmd.Use, "/:(") && cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !strings.HasPrefix(strings.TrimPrefix(cmd.Use, cmd.Name()+" "), "[-f") {
			if _, err := cmd.Flags().GetString("plan"); err != nil {
				t.Errorf("%s: its argument is not completed", cmd.Use)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			value, _ := pflag.UnquoteUsage(f)
			_, completed := cmd.GetFlagCompletionFunc(f.Name)
			files := f.Annotations[cobra.BashCompFilenameExt] != nil
			switch {
			case value == "" || completed || files: // a switch
			case f.Name == "context" || !slices.Contains(free, value):
				t.Errorf("%s --%s %s is not completed", cmd.CommandPath(), f.Name, value)
			}
		})
	}
}

// TestCompletionScriptsAreScripts of the shells that this machine has.
func TestCompletionScriptsAreScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("there is no %s here", shell)
			continue
		}
		script := filepath.Join(t.TempDir(), shell)
		if err := os.WriteFile(script, []byte(isthmus(t, "completion", shell).stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), path, "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s does not take its script: %v: %s", shell, err, out)
		}
	}
}

// noTerminals ends a test that needs one: CI must have /dev/ptmx and a devpts at /dev/pts.
func noTerminals(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this machine has no terminals, and CI must: mount devpts at /dev/pts: %v", err)
	}
	t.Skipf("this machine has no terminals: %v", err)
}

// pty is a terminal of so many columns: who writes to it, and what has come out.
func pty(t *testing.T, columns uint16) (in *os.File, out func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		noTerminals(t, err)
	}
	t.Cleanup(func() { master.Close() })
	var number int
	raw, err := master.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) {
			if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
				number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		})
		if err == nil {
			err = ctlErr
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		noTerminals(t, err)
	}
	if err := unix.IoctlSetWinsize(int(in.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = text.ReadFrom(master) // its end is an error: nobody has the other side any more
	}()
	return in, func() string {
		in.Close()
		<-done
		return text.String()
	}
}

// TestATerminalGetsItsWidthAndColours, and what is no terminal gets neither.
func TestATerminalGetsItsWidthAndColours(t *testing.T) {
	for name, c := range map[string]struct {
		columns uint16
		env     string
		colours bool
		want    int
	}{
		"80 columns":  {80, "", true, 80},
		"60 columns":  {60, "", true, 60},
		"unknown":     {0, "", true, 80},
		"NO_COLOR":    {80, "NO_COLOR=1", false, 80},
		"no commands": {80, "TERM=dumb", false, 80},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			t.Setenv("TERM", "xterm")
			if key, value, is := strings.Cut(c.env, "="); is {
				t.Setenv(key, value)
			}
			in, out := pty(t, c.columns)
			if err := run(t.Context(), []string{"check", "--list"}, strings.NewReader(""), in, in); err != nil {
				t.Fatal(err)
			}
			text := out()
			if is := strings.Contains(text, "\x1b["); is != c.colours {
				t.Errorf("colours: %v, want %v", is, c.colours)
			}
			widest := 0
			for line := range strings.Lines(text) {
				for _, code := range []colour{bold, red, green, yellow, grey, "0"} {
					line = strings.ReplaceAll(line, "\x1b["+string(code)+"m", "")
				}
				widest = max(widest, utf8.RuneCountInString(strings.TrimRight(line, "\r\n")))
			}
			if widest > c.want || widest < c.want-20 {
				t.Errorf("the widest line has %d columns, the terminal %d", widest, c.want)
			}
		})
	}
}
