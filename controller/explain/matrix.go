package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Scope says which questions a matrix asks.
type Scope struct {
	// From: only these; empty is every gateway at an edge.
	From []Source
	// Accounts: every service account of a pod too, but those of gateways and waypoints.
	Accounts bool
	// AllServices: every Service, and not those alone that gateways send to.
	AllServices bool
	// Request is what is known of the requests.
	Request policy.Request
	As      spiffeid.ID
}

// Matrix is who may call what.
type Matrix struct {
	// Sources and Targets are the names of its sides, in order.
	Sources, Targets []string
	Cells            []Cell
}

// Cell is one question of a matrix, with its answer.
type Cell struct {
	From, To string
	// Routed says that From is no gateway, or that a route of its leads To.
	Routed bool
	Answer Answer
}

// Why is the decision that an answer comes from, and Path its way, of the first way that has the answer's verdict.
func (c *Cell) Why() (path, why string) {
	for i := range c.Answer.Ways {
		w := &c.Answer.Ways[i]
		if w.Verdict != c.Answer.Verdict && c.Answer.Verdict != policy.Depends || c.Answer.Verdict == policy.Depends && w.Verdict == policy.Allow {
			continue
		}
		path = w.Short()
		switch h := w.Deciding(); {
		case w.blocked != "":
			why = w.blocked
		case h != nil && c.Answer.Verdict != policy.Depends:
			why = join(": ", h.Decision.Reason.String(), where(h.Decision))
		case h != nil:
			why = join(": ", c.Answer.On, where(h.Decision))
		default:
			why = "nobody enforces anything"
		}
		return path, why
	}
	return "", c.Answer.On
}

// MaxCells is how many questions a matrix may ask: people read no more, and more do not fit into memory.
const MaxCells = 200_000

// TooLargeError says that a matrix would ask more than MaxCells questions.
type TooLargeError struct{ Sources, Services int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d sources and %d Services are more than %d questions", e.Sources, e.Services, MaxCells)
}

// asked are the questions of a matrix about a source and a Service.
type asked struct {
	from   *client
	to     *corev1.Service
	ports  []*corev1.ServicePort
	routed bool
}

// matrixQuestions are those of a matrix, but for more than it may have.
func matrixQuestions(clients []*client, services []*corev1.Service, all bool) (list []asked, err error) {
	ports := make([][]*corev1.ServicePort, len(services))
	for i, svc := range services {
		ports[i] = portsOf(svc)
	}
	cells := 0
	for _, c := range clients {
		for i, svc := range services {
			routed := c.view == nil || slices.ContainsFunc(c.view.Routes, func(r plan.Routed) bool { return slices.Contains(r.Services, keyOf(svc)) })
			if !routed && !all {
				continue
			}
			if cells += len(ports[i]); cells > MaxCells {
				return nil, &TooLargeError{len(clients), len(services)}
			}
			list = append(list, asked{c, svc, ports[i], routed})
		}
	}
	return list, nil
}

// Matrix answers for each source and each port of each Service. An error is a NotFoundError or a TooLargeError.
func (x *Explainer) Matrix(s Scope) (Matrix, error) {
	clients, err := x.matrixClients(&s)
	if err != nil {
		return Matrix{}, err
	}
	services := x.matrixServices(clients, s.AllServices)
	questions, err := matrixQuestions(clients, services, s.AllServices)
	if err != nil {
		return Matrix{}, err
	}
	var m Matrix
	for _, c := range clients {
		m.Sources = append(m.Sources, c.node.Name)
	}
	targets := map[string]*target{}
	q := &Question{Request: s.Request, As: s.As}
	for _, about := range questions {
		for _, port := range about.ports {
			name := keyOf(about.to).String()
			if port != nil {
				name += ":" + strconv.Itoa(int(port.Port))
			}
			t := targets[name]
			if t == nil {
				t = x.service(about.to, port)
				targets[name] = t
				m.Targets = append(m.Targets, name)
			}
			m.Cells = append(m.Cells, Cell{From: about.from.node.Name, To: name, Routed: about.routed, Answer: x.answer(about.from, t, q)})
		}
	}
	slices.Sort(m.Targets)
	return m, nil
}

// matrixClients are the sources of a matrix: gateways before accounts, by name.
func (x *Explainer) matrixClients(s *Scope) (list []*client, err error) {
	if len(s.From) > 0 {
		for _, from := range s.From {
			c, err := x.client(from)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		return list, nil
	}
	views := x.w.Views()
	for i := range views {
		list = append(list, x.gateway(&views[i]))
	}
	slices.SortStableFunc(list, func(a, b *client) int { return cmp.Compare(a.node.Name, b.node.Name) })
	if s.Accounts {
		for _, key := range x.accounts(false) {
			if id, err := x.id(key.Namespace, key.Name); err == nil {
				list = append(list, x.identity(id))
			}
		}
	}
	return list, nil
}

// matrixServices are those that gateways send to, or all. Where no gateway is asked for, they are those of all gateways.
func (x *Explainer) matrixServices(clients []*client, all bool) (list []*corev1.Service) {
	wanted := map[types.NamespacedName]bool{}
	note := func(v *plan.View) {
		for i := range v.Backends {
			wanted[v.Backends[i].Key] = true
		}
	}
	gateways := 0
	for _, c := range clients {
		if c.view != nil {
			gateways++
			note(c.view)
		}
	}
	if views := x.w.Views(); gateways == 0 {
		for i := range views {
			note(&views[i])
		}
	}
	for i := range x.w.Services {
		if s := &x.w.Services[i]; all || wanted[keyOf(s)] {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *corev1.Service) int { return cmp.Compare(keyOf(a).String(), keyOf(b).String()) })
	return list
}

// portsOf are the TCP ports of a Service; one that is nil where it has none.
func portsOf(s *corev1.Service) (list []*corev1.ServicePort) {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Protocol == corev1.ProtocolTCP || p.Protocol == "" {
			list = append(list, p)
		}
	}
	if len(list) == 0 && len(s.Spec.Ports) == 0 {
		list = append(list, nil)
	}
	return list
}
