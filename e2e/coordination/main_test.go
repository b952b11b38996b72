package coordination

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/checktest"
	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/controltest"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders, "gate": gate}))
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// stories are told on one mesh, one after the other. docs/coordination.md tells what each is about, by its number.
func stories() []story {
	return []story{
		{"01_an_ALLOW_names_the_gateway_and_a_waypoint_is_wired", allowNamesTheGateway},
		{"02_a_DENY_of_a_caller_is_void_behind_a_waypoint", denyIsVoid},
		{"03_an_ALLOW_of_requests_at_pods_denies_everybody", allowOfRequestsAtPods},
		{"04_a_DENY_of_requests_at_pods_denies_nobody", denyOfRequestsAtPods},
		{"05_a_gateway_walks_past_the_waypoint_to_pods", pastTheWaypoint},
		{"06_a_waypoint_is_left_out", failOpen},
		{"07_the_edge_takes_the_token_away", tokenIsTaken},
		{"08_edge_and_mesh_take_different_issuers", issuersDiffer},
		{"09_a_header_is_forged_from_inside", forgedInside},
		{"10_a_header_is_forged_from_outside_by_another_route", forgedOutside},
		{"11_a_caller_chooses_its_address", chosenAddress},
		{"12_an_ALLOW_for_monitoring_cuts_the_edge", monitoringCutsTheEdge},
		{"13_a_shared_proxy_is_of_another_namespace", sharedProxy},
		{"16_an_issuer_an_identity_and_a_policy_are_removed_under_traffic", removedUnderTraffic},
	}
}

type story struct {
	name string
	play func(*stage)
}

func TestCoordination(t *testing.T) {
	s := newStage(t)
	for _, one := range stories() {
		t.Run(one.name, func(t *testing.T) {
			began := time.Now()
			one.play(s.of(t))
			t.Logf("told in %v", time.Since(began).Round(time.Millisecond))
		})
	}
}

// toldElsewhere are stories that other packages tell, by their numbers: each has the packages of its tests.
func toldElsewhere() map[string]string {
	return map[string]string{"14": "controllertest", "15": "kgatewaytest"}
}

// TestTheStoriesAreInTheDocs: each has a line, and no line is of a story that nobody tells. What other packages tell has the names of tests that are there.
func TestTheStoriesAreInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/coordination.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z]+)/([^`]+)` in \\[e2e/[a-z]+\\]\\(\\.\\./e2e/([a-z]+)\\)")
	var lines, names []string
	told := map[string]string{} // by number: the package that a line says
	for line := range strings.Lines(string(text)) {
		number, is := strings.CutPrefix(line, "| ")
		if !is || number[0] < '0' || number[0] > '9' {
			continue
		}
		number = number[:2]
		lines = append(lines, number)
		tests := named.FindAllStringSubmatch(line, -1)
		if mentions := strings.Count(line, "`Test"); mentions != len(tests) {
			t.Errorf("line %s names %d tests, and says of %d in which package they are", number, mentions, len(tests))
		}
		for _, test := range tests {
			told[number] = test[3]
			if !tells(t, filepath.Join("..", test[3]), test[1], test[2]) {
				t.Errorf("line %s names %s/%s of %s, which is not there", number, test[1], test[2], test[3])
			}
		}
	}
	for _, s := range stories() {
		names = append(names, s.name[:2])
	}
	for number, by := range toldElsewhere() {
		names = append(names, number)
		if told[number] != by {
			t.Errorf("line %s is told by %q, want %s", number, told[number], by)
		}
	}
	slices.Sort(names)
	if !slices.Equal(lines, names) {
		t.Errorf("docs/coordination.md has lines %v for stories %v", lines, names)
	}
}

// TestTheTestsThatUsersAskForAreInTheDocs: each number that docs/measurements.md has a line for names tests that are there, and each that is asked for has a line.
func TestTheTestsThatUsersAskForAreInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/measurements.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### Tests that users ask for\n")
	section, _, _ = strings.Cut(section, "\n### ")
	named := regexp.MustCompile("`(Test[A-Za-z]+)(?:/([^`]+))?` in \\[([a-z0-9/]+)\\]\\(\\.\\./([a-z0-9/]+)\\)")
	var numbers []string
	for line := range strings.Lines(section) {
		number, rest, is := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !is || number == "" || number[0] < '0' || number[0] > '9' {
			continue
		}
		numbers = append(numbers, number)
		tests := named.FindAllStringSubmatch(rest, -1)
		if mentions := strings.Count(rest, "`Test"); mentions == 0 || mentions != len(tests) {
			t.Errorf("line %s names %d tests, and says of %d in which package they are", number, mentions, len(tests))
		}
		for _, test := range tests {
			if test[3] != test[4] || !tells(t, filepath.Join("..", "..", test[4]), test[1], test[2]) {
				t.Errorf("line %s names %s %s of %s, which is not there", number, test[1], test[2], test[4])
			}
		}
	}
	if want := []string{"1", "2", "3", "6", "7", "10"}; !slices.Equal(numbers, want) {
		t.Errorf("docs/measurements.md has lines %v, want %v", numbers, want)
	}
}

// tells says whether the package of a folder has a test, and a part of it by the name that go test has for it; empty: the test is enough.
func tells(t *testing.T, dir, test, part string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	run := regexp.MustCompile(`t\.Run\("([^"]+)"`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, body, is := strings.Cut(string(text), "\nfunc "+test+"(t *testing.T) {\n")
		body, _, _ = strings.Cut(body, "\n}\n")
		if !is {
			continue
		}
		if part == "" || slices.ContainsFunc(run.FindAllStringSubmatch(body, -1), func(m []string) bool { return strings.ReplaceAll(m[1], " ", "_") == part }) {
			return true
		}
		if strings.Contains(body, "range stories()") { // of this package
			return slices.ContainsFunc(stories(), func(s story) bool { return s.name == part })
		}
	}
	return false
}

// newStage starts a mesh with the scene, and the controller, which asks waypoints with an identity of the mesh.
func newStage(t *testing.T) *stage {
	t.Helper()
	set, err := programs.Ensure(t.Context(), programs.All(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if set.Path(programs.Envoy) == "" {
		t.Skip("there is no Envoy") // with CI=true Ensure has failed
	}
	proxy, err := envoyshim.Image(set)
	if err != nil {
		t.Fatal(err)
	}
	binary := command.Build(t)
	began := time.Now()
	var m *mesh.Mesh
	m = meshtest.New(t, mesh.Options{
		Quick: true, Images: map[string]node.Image{"orders": {Func: "orders"}, "gate": {Func: "gate"}, programs.ProxyImage: proxy},
		MeshConfig: envoyshim.MeshConfig, Capture: capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	install, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(t.Context(), string(install)); err != nil {
		t.Fatal(err)
	}
	controltest.Run(t, m)
	s := &stage{T: t, mesh: m, c: controltest.Client(t, m), check: checktest.New(m, binary)}
	s.apply(scene())
	s.rises()
	t.Logf("all is up after %v", time.Since(began).Round(time.Millisecond))
	return s
}
