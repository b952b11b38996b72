package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/programmed"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

const inspectLong = `Read where gateways really send to, as their proxies have it, and compare that
with their switches: to a Service's own address, by which its waypoint is
chosen, or to its pods, past every waypoint and its policies. That a gateway has
accepted a switch, or says that it is programmed, proves neither.

Each pod of a gateway is asked for what it has programmed, by you: through the
API server, as kubectl port-forward does it, by websockets or else by SPDY. That
takes the rights of the ClusterRole isthmus-view, and the right to create
pods/portforward in the namespaces of these pods; what is missing is named, and
the other gateways are read all the same. Where no pod of a gateway can be read,
its controller is asked, for vendors whose controllers show it. docs/gateways.md
says which page is read of which vendor, and how people see it of the others.
Isthmus need not be installed.

Nothing is written, and no port is opened here. What proxies show of themselves
can hold keys and tokens: names of upstreams and addresses are kept, and nothing
else is shown, nor logged.

With --dump a text stands for the gateway's pods, which are not asked then:
Envoy's /config_dump?include_eds or /clusters, kgateway's /snapshots/xds,
Traefik's /api/rawdata. With --from besides, no cluster is asked either: the
objects of files are all that there is.

SWITCH is what the switch says: service, pods or unknown. RESULT tells what was
seen. The exit code is 1 when a switch is not in force, when a Service that is
switched has nothing that leads to it, or when a page could not be read.`

const inspectExample = `  # All gateways of the cluster
  isthmus inspect

  # One
  isthmus inspect edge/http

  # In a script: which switches are not in force?
  isthmus inspect -o json | jq -r '.gateways[].backends[]
    | select(.result == "notInForce").service'

  # From what somebody with more rights has saved
  kubectl port-forward -n edge deployment/http 19000 &
  curl -s 'localhost:19000/config_dump?include_eds' > dump.json
  isthmus inspect edge/http --dump dump.json

  # Without a cluster
  isthmus inspect edge/http --dump dump.json --from saved/`

// pageTimeout is how long a pod may take to be reached and to show what it has programmed: large dumps take a while.
const pageTimeout = 30 * time.Second

// pagesAtOnce is how many pods are asked at once.
const pagesAtOnce = 8

// inspectFlags are the flags of isthmus inspect.
type inspectFlags struct {
	kube        kubeFlags
	only        string // NAMESPACE/NAME; empty: all
	dumps, from []string
	pageTimeout time.Duration

	open func(kubeFlags) (pages, error) // forwardPages; of a test, something else
}

// pages opens pages of pods. The caller closes what it gets.
type pages interface {
	page(ctx context.Context, namespace, pod string, p edge.Page) (io.ReadCloser, error)
}

func newInspect(a *app) *cobra.Command {
	f := &inspectFlags{open: forwardPages}
	cmd := &cobra.Command{
		Use:     "inspect [[NAMESPACE/]NAME]",
		Short:   "Read where gateways really send to",
		Long:    inspectLong,
		Example: inspectExample,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := cmd.CommandPath()
			if len(args) > 0 {
				if err := f.kube.checkName(name, args[0], "a gateway"); err != nil {
					return err
				}
				f.only = args[0]
			}
			switch n := slices.Index(f.dumps, "-"); {
			case len(f.dumps) > 0 && f.only == "":
				return usagef(name, "--dump is of one gateway: name it")
			case len(f.from) > 0 && len(f.dumps) == 0:
				return usagef(name, "--from asks no cluster, and so no gateway: say with --dump what it has programmed")
			case n >= 0 && (slices.Contains(f.from, "-") || slices.Contains(f.dumps[n+1:], "-")):
				return usagef(name, "standard input is for --dump or for --from, once")
			case f.pageTimeout <= 0:
				return usagef(name, "--page-timeout takes a time above zero, as 30s")
			}
			return a.inspect(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.dumps, "dump", nil, "take what is programmed from `FILE`, and ask no pod: a file, a URL, or - for standard input; may be repeated, for several pods")
	fs.StringArrayVar(&f.from, "from", nil, "ask no cluster, but take what is in `FILE`: YAML, a folder of it, or - for standard input; may be repeated; needs --dump")
	fs.DurationVar(&f.pageTimeout, "page-timeout", pageTimeout, "how long one pod may take to show what it has programmed")
	f.kube.register(cmd)
	f.kube.registerNamespace(cmd)
	cmd.Flags().Lookup("namespace").Usage = "`NAMESPACE` of the gateways to read (default: all; for a name, that of the context)"
	cmd.ValidArgsFunction = f.kube.completeGateways
	completeFiles(cmd, "dump")
	completeFiles(cmd, "from")
	return cmd
}

func (a *app) inspect(ctx context.Context, f *inspectFlags) error {
	s, ns, err := a.inspectWorld(ctx, f)
	if err != nil {
		return err
	}
	doc := &inspectDocument{header: newHeader("Inspection"), Gateways: []inspectedGateway{}}
	var views []plan.View
	for _, v := range plan.Survey(s) {
		if f.only != "" && edgeKey(f.only, ns) != v.Key || f.only == "" && f.kube.namespace != "" && f.kube.namespace != v.Key.Namespace {
			continue
		}
		views = append(views, v)
	}
	if len(views) == 0 {
		return f.noGateway(ns)
	}
	var from pages
	if len(f.dumps) == 0 {
		if from, err = f.open(f.kube); err != nil {
			return err
		}
	}
	for i := range views {
		x := newInspector(s, &views[i])
		if len(f.dumps) > 0 {
			x.texts(ctx, a, f)
		} else {
			done := a.progress(fmt.Sprintf("reading the pods of %s, %d of %d gateways", views[i].String(), i+1, len(views)))
			x.read(ctx, from, f.pageTimeout)
			done()
		}
		doc.Gateways = append(doc.Gateways, x.result())
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	if a.output == outputJSON {
		err = a.writeJSON(doc)
	} else {
		err = doc.print(a.page(a.stdout))
	}
	if err != nil {
		return err
	}
	return doc.failure()
}

// noGateway says that nothing is there that could be read.
func (f *inspectFlags) noGateway(ns string) error {
	fail := &failure{what: "there is no Gateway, and no known Ingress controller", next: "isthmus observe shows what there is"}
	if f.only != "" {
		fail.what, fail.where = "there is no gateway "+f.only, "namespace "+edgeKey(f.only, ns).Namespace
	} else if f.kube.namespace != "" {
		fail.where = "namespace " + f.kube.namespace
	}
	return fail
}

// inspectWorld reads the cluster, or files. It also says which namespace is meant.
func (a *app) inspectWorld(ctx context.Context, f *inspectFlags) (*plan.Snapshot, string, error) {
	scheme, err := ctl.Scheme()
	if err != nil {
		return nil, "", err
	}
	if len(f.from) > 0 {
		w := &paperWorld{namespace: cmp.Or(f.kube.namespace, "default"), flag: "--from", tooLong: "leave out what the gateway has nothing to do with"}
		for _, path := range f.from {
			if err := w.read(a.stdin, path); err != nil {
				return nil, "", err
			}
		}
		w.settle()
		s, err := ctl.Observe(ctx, &paperReader{world: w, scheme: scheme}, &v1alpha1.AmbientEdge{})
		if err != nil {
			if _, told := errors.AsType[*failure](err); !told {
				err = &failure{what: "these files cannot be read", where: strings.Join(f.from, ", "), err: err, next: "correct the object that is named"}
			}
			return nil, "", err
		}
		s.Paper = true
		a.notes(w.notes)
		return s, w.namespace, nil
	}
	done := a.progress("reading the cluster")
	defer done()
	reading, cancel := context.WithTimeout(ctx, f.kube.timeout)
	defer cancel()
	c, ns, err := f.kube.client(scheme)
	if err != nil {
		return nil, "", err
	}
	rights := &missingRights{Reader: c}
	s, err := ctl.Observe(reading, rights, &v1alpha1.AmbientEdge{})
	if err == nil {
		err = rights.err()
	}
	if err != nil {
		return nil, "", explainKube("cannot read the cluster", "", err)
	}
	return s, ns, nil
}

// inspector reads one gateway.
type inspector struct {
	snapshot *plan.Snapshot
	view     *plan.View
	services []programmed.Service // those of the backends that can be looked for, and then others that may share pods with them
	at       []int                // by backend: its index among services; -1: it cannot be looked for

	mu   sync.Mutex // guards the field below
	pods []readPod
}

// readPod is what came of a pod, or of a text in place of one.
type readPod struct {
	inspectedPod
	ways []programmed.Way // by service
}

func newInspector(s *plan.Snapshot, v *plan.View) *inspector {
	x := &inspector{snapshot: s, view: v, at: make([]int, len(v.Backends))}
	own := map[string]bool{}
	near := map[string]bool{}
	for i := range v.Backends {
		b := &v.Backends[i]
		if x.at[i] = -1; b.Service == nil || b.Service.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		x.at[i] = len(x.services)
		x.services = append(x.services, x.service(b.Service))
		own[b.Key.String()], near[b.Key.Namespace] = true, true
	}
	for i := range s.Services {
		if o := &s.Services[i]; v.Vendor.Upstreams == "" && near[o.Namespace] && !own[o.Namespace+"/"+o.Name] {
			x.services = append(x.services, x.service(o))
		}
	}
	return x
}

// service is what is looked for of a Service.
func (x *inspector) service(o *corev1.Service) programmed.Service {
	s := programmed.Service{Namespace: o.Namespace, Name: o.Name}
	for _, ip := range append(slices.Clone(o.Spec.ClusterIPs), o.Spec.ClusterIP) {
		if ip != "" && ip != corev1.ClusterIPNone && !slices.Contains(s.Addresses, ip) {
			s.Addresses = append(s.Addresses, ip)
		}
	}
	for _, p := range plan.Selected(x.snapshot, o) {
		if p.Status.PodIP != "" {
			s.Pods = append(s.Pods, p.Status.PodIP)
		}
	}
	return s
}

// texts reads what stands for the gateway's pods.
func (x *inspector) texts(ctx context.Context, a *app, f *inspectFlags) {
	for _, where := range f.dumps {
		reading, cancel := context.WithTimeout(ctx, f.pageTimeout)
		p := readPod{inspectedPod: inspectedPod{Text: where}}
		if where == "-" {
			p.Text = "standard input"
		} else if u, err := url.Parse(where); err == nil && u.User != nil {
			p.Text = u.Redacted()
		}
		in, err := openText(reading, a.stdin, where)
		if err == nil {
			p.ways, err = x.ways(in)
			in.Close()
		}
		if err != nil {
			p.fail(&failure{what: "cannot read what is programmed", where: p.Text, err: err, next: "name a text that a gateway has shown: " + x.view.Vendor.Inspect})
		}
		x.pods = append(x.pods, p)
		cancel()
	}
}

// openText opens a file, a page of the web, or standard input.
func openText(ctx context.Context, stdin io.Reader, where string) (io.ReadCloser, error) {
	u, err := url.Parse(where)
	switch {
	case where == "-":
		return io.NopCloser(stdin), nil
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return os.Open(where)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return getPage(ctx, c, where)
}

// getPage gets a page, and leaves no trace of its address in errors.
func getPage(ctx context.Context, c *http.Client, at string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	req.Header.Set("User-Agent", "isthmus/"+buildVersion().Version)
	res, err := c.Do(req)
	if u, is := errors.AsType[*url.Error](err); is {
		err = u.Err
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("it answers HTTP %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return res.Body, nil
}

// read asks the gateway's pods, and, where none of them answers, its controller.
func (x *inspector) read(ctx context.Context, from pages, timeout time.Duration) {
	if !slices.ContainsFunc(x.view.Vendor.Shows, func(p edge.Page) bool { return !p.Controller }) {
		return
	}
	x.ask(ctx, from, timeout, x.view.Pods, false)
	if !slices.ContainsFunc(x.pods, func(p readPod) bool { return p.Error == nil }) && len(x.pods) > 0 {
		x.ask(ctx, from, timeout, plan.ControllerPods(x.snapshot, &x.view.Vendor), true)
	}
}

// ask asks pods, some at a time, and keeps what came of each in their order.
func (x *inspector) ask(ctx context.Context, from pages, timeout time.Duration, pods []*plan.Pod, controller bool) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, pagesAtOnce)
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		if !slices.ContainsFunc(x.view.Vendor.Shows, func(p edge.Page) bool { return p.Controller == controller }) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			p := x.askOne(ctx, from, timeout, pod, controller)
			x.mu.Lock()
			defer x.mu.Unlock()
			x.pods = append(x.pods, p)
		})
	}
	wg.Wait()
	slices.SortStableFunc(x.pods, func(a, b readPod) int { return cmp.Compare(a.name(), b.name()) })
}

// askOne asks a pod for its pages, until one can be read.
func (x *inspector) askOne(ctx context.Context, from pages, timeout time.Duration, pod *plan.Pod, controller bool) readPod {
	p := readPod{inspectedPod: inspectedPod{Namespace: pod.Namespace, Name: pod.Name, Controller: controller}}
	for _, show := range x.view.Vendor.Shows {
		if show.Controller != controller {
			continue
		}
		p.Page = fmt.Sprintf("%d%s", show.Port, show.Path)
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			in, err := from.page(ctx, pod.Namespace, pod.Name, show)
			if err != nil {
				return err
			}
			defer in.Close()
			if p.ways, err = x.ways(in); ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}()
		if err == nil {
			p.Error = nil
			return p
		}
		fail, told := errors.AsType[*failure](err)
		if !told {
			fail = &failure{what: "cannot read what is programmed", err: err, next: fmt.Sprintf("see what is there: kubectl port-forward -n %s pod/%s %d", pod.Namespace, pod.Name, show.Port)}
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				fail.err, fail.next = errors.New("it takes too long"), "give it longer with --page-timeout"
			case show.Needs != "":
				fail.next = "this page is there with " + show.Needs + "; " + fail.next
			}
		}
		fail.where = fmt.Sprintf("pod %s/%s, %s", pod.Namespace, pod.Name, p.Page)
		p.fail(fail)
	}
	return p
}

// ways reads a text, and finds the Services in it.
func (x *inspector) ways(in io.Reader) ([]programmed.Way, error) {
	d, err := programmed.Read(in)
	if err != nil {
		return nil, err
	}
	names := programmed.Names(x.view.Vendor.Upstreams)
	if d.Kind != programmed.Snapshots {
		return d.Proxies[0].Ways(names, x.services)
	}
	var all [][]programmed.Way
	of := fmt.Sprintf("~%s~%s~", x.view.Key.Namespace, x.view.Key.Name)
	for i := range d.Proxies {
		if !strings.Contains(d.Proxies[i].Key+"~", of) {
			continue
		}
		ways, err := d.Proxies[i].Ways(names, x.services)
		if err != nil {
			return nil, err
		}
		all = append(all, ways)
	}
	if len(all) == 0 {
		return nil, errors.New("it has nothing for proxies of this gateway")
	}
	return programmed.Together(all), nil
}
