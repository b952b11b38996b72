package run

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	registry "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// metrics are the controller's own, beside those of controller-runtime: the time of a reconciliation is controller_runtime_reconcile_time_seconds.
// Their series are bounded: labels have values of the API alone, never names of objects. The zero value is ready, and registered nowhere.
type metrics struct {
	effects prometheus.Histogram // nil until register

	mu sync.Mutex // guards the field below
	of map[types.NamespacedName]tally
}

// tally is what an edge adds to the sums.
type tally struct {
	mode, reason string
	backends     map[string]int
	findings     map[[2]string]int // by code and severity
}

// States of a backend.
const (
	backendWired   = "wired"   // it leads to its waypoint, which was seen to serve it
	backendWaiting = "waiting" // it is to, and does not yet
	backendDirect  = "direct"  // no waypoint is wanted for it
	backendHeld    = "held"    // an error holds it back, and the others go on
)

// Names of metrics.
const (
	metricEdges    = "isthmus_edges"
	metricBackends = "isthmus_backends"
	metricFindings = "isthmus_findings"
	metricEffect   = "isthmus_change_to_effect_seconds"
)

// Metrics are the names of the controller's own metrics, the histogram's without what Prometheus adds to it.
func Metrics() []string {
	return []string{metricEdges, metricBackends, metricFindings, metricEffect}
}

// describe are the sums: names and labels.
func (m *metrics) describe() (edges, backends, findings *prometheus.Desc) {
	return prometheus.NewDesc(metricEdges, "AmbientEdges by mode and by the reason of their condition Ready, which is Done where they are ready.", []string{"mode", "reason"}, nil),
		prometheus.NewDesc(metricBackends, "Services behind AmbientEdges by state: wired, waiting, direct, held.", []string{"state"}, nil),
		prometheus.NewDesc(metricFindings, "Findings in the plans of AmbientEdges by code and severity.", []string{"code", "severity"}, nil)
}

// register makes them part of what the manager serves. Of several controllers in one process the last one counts.
func (m *metrics) register() error {
	m.effects = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: metricEffect, Help: "Time from a change in the cluster, as a watch tells of it, to the last write that answers it.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})
	for _, c := range []prometheus.Collector{m, m.effects} {
		if err := registry.Registry.Register(c); err != nil {
			again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err)
			if !ok {
				return err
			}
			registry.Registry.Unregister(again.ExistingCollector)
			if err := registry.Registry.Register(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// effect notes that what has changed since then has had its effect.
func (m *metrics) effect(since time.Time) {
	if m.effects != nil && !since.IsZero() {
		m.effects.Observe(time.Since(since).Seconds())
	}
}

// note takes the place of what an edge has added before.
func (m *metrics) note(e *v1alpha1.AmbientEdge, p *plan.Plan) {
	t := tally{mode: string(v1alpha1.ModeObserve), backends: map[string]int{}, findings: map[[2]string]int{}}
	if e.Spec.Mode != "" {
		t.mode = string(e.Spec.Mode)
	}
	if c := meta.FindStatusCondition(p.Status(e).Conditions, v1alpha1.ConditionReady); c != nil {
		t.reason = c.Reason
	}
	left := map[string]bool{}
	for i := range p.Steps {
		left[p.Steps[i].Object] = left[p.Steps[i].Object] || p.Steps[i].State != v1alpha1.StepDone
	}
	for i := range p.Backends {
		switch b := &p.Backends[i]; {
		case p.Holds(b.Service):
			t.backends[backendHeld]++
		case b.Waypoint == "" && !left["Service "+b.Service]:
			t.backends[backendDirect]++
		case left["Service "+b.Service]:
			t.backends[backendWaiting]++
		default:
			t.backends[backendWired]++
		}
	}
	for i := range p.Findings {
		t.findings[[2]string{p.Findings[i].Code, string(p.Findings[i].Severity)}]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[types.NamespacedName]tally{}
	}
	m.of[client.ObjectKeyFromObject(e)] = t
}

func (m *metrics) forget(e types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, e)
}

// Describe is a prometheus.Collector's.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	edges, backends, findings := m.describe()
	to <- edges
	to <- backends
	to <- findings
}

// Collect sums up.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	edges, states, findings := map[[2]string]int{}, map[string]int{backendWired: 0, backendWaiting: 0, backendDirect: 0, backendHeld: 0}, map[[2]string]int{}
	m.mu.Lock()
	for _, t := range m.of {
		edges[[2]string{t.mode, t.reason}]++
		for k, n := range t.backends {
			states[k] += n
		}
		for k, n := range t.findings {
			findings[k] += n
		}
	}
	m.mu.Unlock()
	edge, backend, finding := m.describe()
	for k, n := range edges {
		to <- prometheus.MustNewConstMetric(edge, prometheus.GaugeValue, float64(n), k[0], k[1])
	}
	for k, n := range states {
		to <- prometheus.MustNewConstMetric(backend, prometheus.GaugeValue, float64(n), k)
	}
	for k, n := range findings {
		to <- prometheus.MustNewConstMetric(finding, prometheus.GaugeValue, float64(n), k[0], k[1])
	}
}

var _ prometheus.Collector = (*metrics)(nil)
