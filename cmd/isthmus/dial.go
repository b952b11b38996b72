package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
)

const dialLong = `Find the way to HOST:PORT as a captured pod would, take it over HBONE with an
identity of the mesh, and show what was seen: every hop, whom it has to be, and
why the way leads there.

HOST is a Service's full name (orders.shop.svc.cluster.local), its VIP, or a
pod's address. The way comes from istiod, who wants a service account's token;
--via names one by hand.

--identity says where our certificate comes from: istiod, for the token's
service account (the default), spire (a SPIFFE Workload API), sds (Istio's agent
beside us, or SPIRE's) or files. Flags that are for one of these say so first.
Whom to believe comes along; --trust-alias, --trust-additional and
--trust-federated add to it, and --crl takes away. In a pod that mounts a token
for istio-ca and the ConfigMap istio-ca-root-cert where the defaults look, no
flag is needed.

With --http the route and the answer's head go to standard error and its body to
standard output; a status of 400 or more is a failure. Without, standard input
and output are relayed until the other side has ended. With -o json all is one
document, and nothing is relayed.

What leads around HBONE is refused; --allow-plaintext permits it.`

const dialExample = `  # Only show the way
  isthmus dial orders.shop.svc.cluster.local:80 --route

  # Ask for a page, as the service account of the token
  isthmus dial orders.shop.svc.cluster.local:80 --http /orders

  # From a machine that reaches pods: a token of the gateway's account, and
  # istiod by port-forward
  kubectl create token gateway -n edge --audience istio-ca > token
  kubectl get configmap istio-ca-root-cert \
    -o jsonpath='{.data.root-cert\.pem}' > root.pem
  kubectl -n istio-system port-forward deploy/istiod 15012 &
  isthmus dial 10.96.3.4:80 --http / --istiod 127.0.0.1:15012 \
    --token-file token --ca-roots root.pem

  # Without istiod: identity from files, and the hop by hand
  isthmus dial 10.0.0.7:8080 --via 10.0.0.7:15008 \
    --peer spiffe://cluster.local/ns/shop/sa/orders \
    --cert chain.pem --key key.pem --roots roots.pem

  # As whom a SPIRE agent knows us, in a mesh whose trust domain was renamed,
  # and to nobody revoked
  isthmus dial orders.shop.svc.cluster.local:80 --http / --identity spire \
    --socket unix:///run/spire/agent.sock --trust-alias old.example \
    --crl ca-crl.pem

  # As whom Istio's agent beside us has a certificate for
  isthmus dial orders.shop.svc.cluster.local:80 --http / --identity sds`

// dialFlags are the flags of isthmus dial.
type dialFlags struct {
	mesh           meshFlags
	http, method   string
	headers        []string
	routeOnly      bool
	allowPlaintext bool
	timeout        time.Duration
	via            string
	peers          []string
}

func newDial(a *app) *cobra.Command {
	f := &dialFlags{mesh: meshFlags{getenv: a.getenv}}
	cmd := &cobra.Command{
		Use:     "dial HOST:PORT",
		Short:   "Dial through the mesh over HBONE and show the way",
		Long:    dialLong,
		Example: dialExample,
		Args:    oneArg("HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd, args[0]); err != nil {
				return err
			}
			return a.dial(cmd.Context(), f, args[0])
		},
	}
	cmd.ValidArgsFunction = completeTarget
	fs := cmd.Flags()
	fs.StringVar(&f.http, "http", "", "send an HTTP request for `PATH`")
	fs.StringVar(&f.method, "method", "GET", "`METHOD` of the request of --http")
	completeMethods(cmd)
	fs.StringArrayVar(&f.headers, "header", nil, "`NAME:VALUE` to send with --http; may be repeated, host is the authority")
	fs.BoolVar(&f.routeOnly, "route", false, "show the way and do not take it")
	fs.BoolVar(&f.routeOnly, "explain-only", false, "the same as --route")
	fs.BoolVar(&f.allowPlaintext, "allow-plaintext", false, "take a way that leads around HBONE, in plaintext")
	fs.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long identity, route and connection may take together")
	fs.StringVar(&f.via, "via", "", "`IP:PORT` of the HBONE listener to go through, instead of asking istiod; needs --peer")
	fs.StringArrayVar(&f.peers, "peer", nil, "SPIFFE `ID` that --via may show; may be repeated")
	f.mesh.register(cmd)
	return cmd
}

func (f *dialFlags) check(cmd *cobra.Command, target string) error {
	name := cmd.CommandPath()
	host, port, err := net.SplitHostPort(target)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return usagef(name, "%q is not HOST:PORT", target)
	}
	switch {
	case f.timeout <= 0:
		return usagef(name, "--timeout must be more than 0")
	case f.http != "" && !strings.HasPrefix(f.http, "/"):
		return usagef(name, "--http takes a path that starts with /, not %q", f.http)
	case f.http == "" && len(f.headers) > 0:
		return usagef(name, "--header needs --http")
	case (f.via == "") != (len(f.peers) == 0):
		return usagef(name, "--via and --peer belong together: whoever answers is checked against --peer")
	}
	for _, h := range f.headers {
		if n, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(n) == "" {
			return usagef(name, "--header takes NAME:VALUE, and one has no name")
		}
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
	return f.mesh.check(cmd)
}

// dial finds the way, takes it, and does what was asked at its end.
func (a *app) dial(ctx context.Context, f *dialFlags, target string) error {
	opening, cancel := context.WithTimeoutCause(ctx, f.timeout, context.DeadlineExceeded)
	defer cancel()
	start := time.Now()
	if f.routeOnly {
		rt, err := a.resolve(opening, f, target)
		if err != nil {
			return err
		}
		doc := newDialDocument(target, rt)
		if a.output == outputJSON {
			return a.writeJSON(doc)
		}
		return doc.Route.print(a.page(a.stdout), target)
	}
	done := a.progress("getting a certificate for us")
	src, err := f.mesh.source(opening) // first: a token that istiod refuses is refused at once
	done()
	if err != nil {
		return err
	}
	defer src.Close()
	rt, err := a.resolve(opening, f, target)
	if err != nil {
		return err
	}
	doc := newDialDocument(target, rt)
	if a.output == outputText {
		if err := doc.Route.print(a.page(a.stderr), target); err != nil {
			return err
		}
	}
	d := &hbone.Dialer{
		Identity: src, Resolver: hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return rt, nil }),
		RetryWithin: -1, // the first answer is what was asked for
	}
	if f.allowPlaintext {
		d.Plaintext = hbone.PlaintextAllow
	}
	defer d.Close()
	done = a.progress("dialling " + target)
	conn, err := d.DialContext(opening, "tcp", target)
	done()
	if err != nil {
		return explainDial(target, plaintextRefused(rt, err))
	}
	defer conn.Close()
	doc.connected(conn, time.Since(start))
	if a.output == outputText {
		doc.Connection.print(a.page(a.stderr))
	}
	switch {
	case f.http != "":
		return a.request(ctx, f, target, conn, doc)
	case a.output == outputJSON:
		return a.writeJSON(doc)
	}
	return a.relay(ctx, target, conn)
}

// resolve finds the way, by hand or from istiod.
func (a *app) resolve(ctx context.Context, f *dialFlags, target string) (hbone.Route, error) {
	if f.via != "" {
		hop := hbone.Hop{Addr: netip.MustParseAddrPort(f.via), Authority: target, Kind: hbone.HopWorkload}
		for _, p := range f.peers {
			hop.Peers = append(hop.Peers, spiffeid.RequireFromString(p))
		}
		return hbone.Route{Hops: []hbone.Hop{hop}, Reason: []string{"--via names the way"}}, nil
	}
	client, err := f.mesh.resolver(ctx)
	if err != nil {
		return hbone.Route{}, err
	}
	defer client.Close()
	done := a.progress("asking istiod at " + strings.Join(f.mesh.istiod, ", ") + " for the way to " + target)
	defer done()
	rt, err := client.Resolve(ctx, "tcp", target)
	if err != nil {
		return hbone.Route{}, explainResolve(target, &f.mesh, err)
	}
	return rt, nil
}

// plaintextRefused makes the Dialer's words for a way without HBONE those of this command.
func plaintextRefused(rt hbone.Route, err error) error {
	if len(rt.Hops) > 0 {
		return err
	}
	return &failure{what: "only plaintext leads there, and that is refused", where: rt.Direct.String(), err: errors.New(strings.Join(rt.Reason, "; ")),
		next: "bring the workload into the mesh (istio.io/dataplane-mode=ambient), or permit it with --allow-plaintext"}
}
