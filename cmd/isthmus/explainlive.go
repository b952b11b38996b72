package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/controller/explain"
	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// probeTimeout is how long one probe may take, its route and its answer too.
const probeTimeout = 10 * time.Second

// checkLive refuses flags of --live without it, and prepares those that it takes.
func (f *explainFlags) checkLive(cmd *cobra.Command) error {
	name := cmd.CommandPath()
	if !f.live {
		for _, flag := range f.liveFlags {
			if cmd.Flags().Changed(flag) {
				return usagef(name, "--%s is for --live: leave it out, or add --live", flag)
			}
		}
		return nil
	}
	if (f.via == "") != (len(f.peers) == 0) {
		return usagef(name, "--via and --peer belong together: whoever answers is checked against --peer")
	}
	if f.via != "" {
		if _, err := netip.ParseAddrPort(f.via); err != nil {
			return usagef(name, "--via takes IP:PORT, not %q", f.via)
		}
	}
	for _, p := range f.peers {
		if _, err := spiffeid.FromString(p); err != nil {
			return usagef(name, "--peer %q: %v", p, err)
		}
	}
	if len(f.request.jwt) > 0 && f.request.jwt[0] != none {
		return usagef(name, "--live sends no token of its own making: give one as --header authorization=..., and leave --jwt out")
	}
	f.mesh.at, f.mesh.trustDomain = f.world.config.istiod, f.world.config.trustDomain
	if f.mesh.trustDomain == "" {
		f.mesh.trustDomain = f.world.config.assumed().TrustDomain
	}
	return f.mesh.check(cmd)
}

// explainLive answers, tries, and compares.
func (a *app) explainLive(ctx context.Context, f *explainFlags, w *world, x *explain.Explainer) error {
	if w.Mesh.TrustDomain != "" {
		f.mesh.trustDomain = w.Mesh.TrustDomain
	}
	opening, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	done := a.progress("getting a certificate for us")
	src, err := f.mesh.source(opening)
	done()
	if err != nil {
		return err
	}
	defer src.Close()
	svid, err := src.GetX509SVID()
	if err != nil {
		return err
	}
	notes := w.notes
	answer, err := x.Answer(f.question)
	if err != nil {
		return f.missing(err)
	}
	if !answer.TCP {
		notes = f.complete(notes)
	}
	if !slices.ContainsFunc(answer.Ways, func(w explain.Way) bool { return slices.Contains(w.Source(), svid.ID) }) {
		notes = append(notes, fmt.Sprintf("the identity that we hold is %s, which is not that of %s: what is told is told of ours", svid.ID, answer.From))
		f.question.As = svid.ID
	}
	if answer, err = x.Answer(f.question); err != nil {
		return f.missing(err)
	}
	p := &prober{app: a, flags: f, answer: &answer}
	p.dialer = &hbone.Dialer{Identity: src, Resolver: hbone.ResolverFunc(p.resolve), RetryWithin: -1} // the first answer is what was asked for
	defer p.dialer.Close()
	live := &liveDetail{Identity: svid.ID.String(), Probes: []probeDetail{}}
	for i := range answer.Ways {
		live.Probes = append(live.Probes, p.way(ctx, i)...)
	}
	live.settle()
	if a.output == outputText {
		a.notes(notes[len(w.notes):])
	}
	if err := a.showAnswer(f, x, &answer, live, notes); err != nil {
		return err
	}
	return live.failure()
}

// complete fills in what a request needs that is sent, and says so.
func (f *explainFlags) complete(notes []string) []string {
	q := &f.question.Request
	if !q.Method.Known() {
		f.request.method = http.MethodGet
	}
	if !q.Path.Known() {
		f.request.path = "/"
	}
	said := fmt.Sprintf("the request that is sent is %s %s", f.request.method, f.request.path)
	if !q.Method.Known() || !q.Path.Known() {
		notes = append(notes, said)
	}
	q.Method, q.Path = policy.Of(f.request.method), policy.Of(f.request.path)
	if !q.Token.Known() && !slices.ContainsFunc(f.request.headers, func(h string) bool { return strings.HasPrefix(strings.ToLower(h), "authorization") }) {
		q.Token = policy.Absent[policy.Token]()
	}
	return notes
}

// prober tries ways.
type prober struct {
	app    *app
	flags  *explainFlags
	answer *explain.Answer
	dialer *hbone.Dialer
	last   hbone.Route // that was resolved last
}

// resolve finds a way as isthmus dial does.
func (p *prober) resolve(ctx context.Context, _, target string) (hbone.Route, error) {
	rt, err := p.app.resolve(ctx, &dialFlags{mesh: p.flags.mesh, via: p.flags.via, peers: p.flags.peers}, target)
	p.last = rt
	return rt, err
}

// way tries each target of a way.
func (p *prober) way(ctx context.Context, i int) (list []probeDetail) {
	w := &p.answer.Ways[i]
	d := probeDetail{Way: i + 1, Predicted: w.Verdict.String()}
	first := w.Hops[0]
	for _, h := range w.Hops {
		if first = h; !h.Before {
			break
		}
	}
	switch {
	case len(w.Source()) == 0:
		d.Result, d.Said = probeSkipped, "nobody is seen on this way: it is plaintext, and is not tried"
	case first.Transport == explain.TransportPlaintext:
		d.Result, d.Said = probeSkipped, "the pods are outside the mesh: only plaintext leads there, and is not tried"
	case len(w.Targets()) == 0:
		d.Result, d.Said = probeSkipped, "the address of what is to be dialled is not known here"
	}
	if d.Result != "" {
		return []probeDetail{d}
	}
	const most = 3 // pods of a way, which are all under the same policies
	for _, target := range w.Targets()[:min(len(w.Targets()), most)] {
		one := d
		one.Target = target
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		p.target(ctx, w, &one)
		cancel()
		one.compare(w)
		list = append(list, one)
	}
	return list
}

// target dials, and asks.
func (p *prober) target(ctx context.Context, w *explain.Way, d *probeDetail) {
	p.last = hbone.Route{}
	done := p.app.progress("trying " + d.Target)
	defer done()
	conn, err := p.dialer.DialContext(ctx, "tcp", d.Target)
	for _, h := range p.last.Hops {
		d.Path = append(d.Path, hopName(h.Kind, h.Name, h.Addr.String()))
		d.viaWaypoint = d.viaWaypoint || h.Kind == hbone.HopWaypoint
	}
	if err != nil {
		d.refusedBy(explainDial(d.Target, plaintextRefused(p.last, err)), err)
		return
	}
	defer conn.Close()
	if p.answer.TCP {
		d.opened(ctx, conn)
		return
	}
	d.asked(p.send(ctx, d.Target, conn))
}

// probed is an answer: what its body begins with is enough.
type probed struct {
	code         int
	status, body string
}

// send sends the request, and reads how its answer begins.
func (p *prober) send(ctx context.Context, target string, conn net.Conn) (*probed, error) {
	r := &p.flags.request
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+target+r.path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "isthmus/"+buildVersion().Version)
	for _, h := range r.headers {
		name, value, _ := pair(h)
		req.Header.Add(name, value)
	}
	if r.host != "" {
		req.Host = r.host
	}
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if conn == nil {
			return nil, errors.New("the connection was lost before the answer")
		}
		c := conn
		conn = nil
		return c, nil
	}}
	defer t.CloseIdleConnections()
	res, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 256)) // what it began with is enough, and may be missing
	return &probed{res.StatusCode, res.Status, strings.TrimSpace(string(body))}, nil
}
