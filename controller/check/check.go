package check

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Object names an object of a cluster.
type Object struct {
	// Group is empty for Kubernetes' core.
	Group, Kind string
	types.NamespacedName
}

// String is Kind namespace/name, or Kind name.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.NamespacedName.String()
}

// Finding is one fault, or one thing worth knowing.
type Finding struct {
	Code     string
	Severity v1alpha1.Severity
	// Object is the one to be mended, and Field the path in it. An empty Field is the whole object.
	Object Object
	Field  string
	// Message says what is wrong, and what happens to whom.
	Message string
	// Fix says what to do. Patch is YAML to apply as it is, or a command; empty: there is none that fits for sure.
	Fix, Patch string
	// Related are other objects that the finding is about.
	Related []Object
	// Where the object stands, as file:line; empty in a cluster. Run fills it.
	Where string
	// Ignored is the reason that the object's annotation gives for not minding it. Empty: it is minded. Run fills it.
	Ignored string
}

// Check finds one kind of fault.
type Check struct {
	Code string
	// Title in a few words, as for a list.
	Title string
	// Severities that it has, the worst first.
	Severities []v1alpha1.Severity
	// Pains are the letters of the pains, and the ids of coordination findings, that it answers: B2, EI03.
	Pains []string
	// Matter says what is wrong, Harm what happens to whom, and Fix how it is mended: for the reference.
	Matter, Harm, Fix string
	// Find calls found for each. Other checks of the same World run meanwhile: it changes nothing of it.
	Find func(w *World, found func(Finding))
}

// All are all checks, by code.
func All() []Check {
	list := slices.Concat(pathChecks(), identityChecks(), enrolmentChecks(), networkChecks(), edgeChecks(), reliabilityChecks())
	slices.SortFunc(list, func(a, b Check) int { return cmp.Compare(a.Code, b.Code) })
	return list
}

// Ignore is the annotation by which an object's findings are ignored: codes with reasons, one a line or parted by semicolons, as in
// "ISM204: the caller is a batch job". A code without a reason does not count.
const Ignore = "isthmus.dev/ignore"

// Run looks for all faults, those that are worst first and then by place. Checks run at the same time, one for each processor; what is found, and in which
// order, does not depend on that.
func Run(w *World, checks []Check) []Finding {
	first := []func(){func() { w.edgeWorld() }, func() { w.guard() }} // what most of them wait for
	plan.AtOnce(len(first), func(i int) { first[i]() })
	found := make([][]Finding, len(checks))
	plan.AtOnce(len(checks), func(i int) { found[i] = checks[i].run(w) })
	all := slices.Concat(found...)
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(weight(a.Severity), weight(b.Severity)), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Object.Namespace, b.Object.Namespace),
			cmp.Compare(a.Object.Name, b.Object.Name), cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message),
		)
	})
	return all
}

// run is what a check finds, each once and in its own order.
func (c *Check) run(w *World) []Finding {
	var list []Finding
	seen := map[string]bool{}
	c.Find(w, func(f Finding) {
		f.Code = c.Code
		if f.Severity == "" {
			f.Severity = c.Severities[0]
		}
		key := f.Object.String() + "\x00" + f.Field + "\x00" + f.Message
		if seen[key] {
			return
		}
		seen[key] = true
		if !f.Object.plainName() || slices.ContainsFunc(f.Related, func(o Object) bool { return !o.plainName() }) {
			f.Patch = ""
		}
		f.Where = w.where[f.Object]
		f.Ignored = w.ignored(f.Object, f.Code)
		list = append(list, f)
	})
	return list
}

func weight(s v1alpha1.Severity) int {
	return slices.Index([]v1alpha1.Severity{v1alpha1.SeverityError, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}, s)
}

// ignored is the reason for which an object's findings of a code are not minded, or "".
func (w *World) ignored(o Object, code string) string {
	for part := range strings.FieldsFuncSeq(w.ignores[o], func(r rune) bool { return r == ';' || r == '\n' }) {
		if is, reason, ok := strings.Cut(part, ":"); ok && strings.TrimSpace(is) == code {
			return strings.TrimSpace(reason)
		}
	}
	return ""
}
