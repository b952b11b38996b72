package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// maxJSONBody is how much of an answer a JSON document takes.
const maxJSONBody = 1 << 20

// request sends the HTTP request of --http on conn and shows the answer.
func (a *app) request(ctx context.Context, f *dialFlags, target string, conn net.Conn, doc *dialDocument) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, f.method, "http://"+target+f.http, nil)
	if err != nil {
		return usagef("isthmus dial", "the request makes no sense: %v", err)
	}
	req.Header.Set("User-Agent", "isthmus/"+buildVersion().Version)
	for _, h := range f.headers {
		name, value, _ := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.EqualFold(name, "host") {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	first := true
	t := &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if !first {
			return nil, errors.New("the connection was lost before the answer")
		}
		first = false
		return conn, nil
	}}
	defer t.CloseIdleConnections()
	done := a.progress("waiting for the answer of " + target)
	res, err := t.RoundTrip(req)
	done()
	if err != nil {
		return explainUse(target, err)
	}
	defer res.Body.Close()
	if a.output == outputJSON {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxJSONBody+1))
		if err != nil {
			return explainUse(target, err)
		}
		doc.Response = &responseDetail{Status: res.StatusCode, Header: res.Header}
		doc.Response.Truncated = len(body) > maxJSONBody
		doc.Response.Body = string(body[:min(len(body), maxJSONBody)])
		if err := a.writeJSON(doc); err != nil {
			return err
		}
	} else {
		p := a.page(a.stderr)
		c := green
		if res.StatusCode >= 400 {
			c = red
		}
		fmt.Fprintf(p.w, "%s%s\n", p.paint(grey, "answer    "), p.paint(c, res.Proto+" "+res.Status))
		out := &lastByte{w: a.stdout}
		if _, err := io.Copy(out, res.Body); err != nil {
			return explainUse(target, err)
		}
		switch { // what follows begins a line of its own; a file has what came
		case out.last == '\n' || out.last == 0:
		case terminal(a.stdout) > 0:
			fmt.Fprintln(a.stdout)
		case res.StatusCode >= http.StatusBadRequest:
			fmt.Fprintln(p.w)
		}
	}
	return badStatus(target, doc, res)
}

// lastByte remembers what was written last.
type lastByte struct {
	w    io.Writer
	last byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.last = p[len(p)-1]
	}
	return l.w.Write(p)
}

// badStatus makes a failure of a status of 400 or more.
func badStatus(target string, doc *dialDocument, res *http.Response) error {
	if res.StatusCode < 400 {
		return nil
	}
	f := &failure{what: fmt.Sprintf("%s answered %s", target, res.Status), where: "at the end of the way", next: "ask the owner of that application: the mesh let the request through"}
	if n := len(doc.Route.Hops); n > 0 {
		hop := doc.Route.Hops[n-1]
		f.where = hopName(hbone.HopKind(hop.Kind), hop.Name, hop.Address) + ", or behind it"
		if hop.Kind == string(hbone.HopWaypoint) {
			switch res.StatusCode {
			case http.StatusForbidden:
				f.next = "if the waypoint said so, an AuthorizationPolicy denies this request: " + explainCommand(doc, res.Request)
			case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
				f.next = "check that the pods of the Service are ready, and that a policy there admits the waypoint's identity " + strings.Join(hop.Peers, " or ")
			}
		}
	}
	return f
}

// explainCommand says which policy denies a request to a Service.
func explainCommand(doc *dialDocument, req *http.Request) string {
	from := "SOURCE"
	if doc.Connection != nil && doc.Connection.Local != "" {
		from = doc.Connection.Local
	}
	to := "NAMESPACE/SERVICE"
	if parts := strings.Split(doc.Route.Service, "."); len(parts) > 2 && parts[2] == "svc" {
		to = parts[1] + "/" + parts[0]
	}
	path := "'" + strings.ReplaceAll(req.URL.Path, "'", `'\''`) + "'"
	return fmt.Sprintf("isthmus explain --from %s --to %s --method %s --path %s --why-not", from, to, req.Method, path)
}

// explainUse says how a tunnel that had opened ended.
func explainUse(target string, err error) error {
	f := &failure{what: "the connection to " + target + " ended", err: err, next: "look into the log of that hop, and of the workload behind it"}
	if e, ok := errors.AsType[*hbone.TunnelError](err); ok {
		f.err = e
		f.where = hopName(e.Kind, "", e.Hop.String())
		f.next = "see whether a policy denies the connection: kubectl get authorizationpolicies -A; if not, whether the workload listens on " + e.Target
	}
	if errors.Is(err, context.DeadlineExceeded) {
		f.err = errors.New("there was no answer in time")
		f.next = "raise --timeout, or look into the workload's log"
	}
	return f
}

// relay copies standard input to conn and conn to standard output until the other side has ended. The end of standard input is passed on,
// and what comes back is still taken.
func (a *app) relay(ctx context.Context, target string, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// Reading standard input cannot be interrupted: this goroutine may outlive relay, and ends with the process.
	sent := make(chan error, 1)
	var asked atomic.Int64
	go func() {
		n, err := io.Copy(conn, a.stdin)
		asked.Store(n)
		if cw, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = cw.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.Copy(a.stdout, conn)
	if ctx.Err() != nil {
		return &failure{what: "interrupted", err: context.Cause(ctx)}
	}
	if err != nil && got > 0 {
		return explainReset(target, got, err)
	}
	if err != nil {
		return explainUse(target, err)
	}
	select {
	case err = <-sent: // it may have failed while the other side was well
	default: // the other side has ended: what we could still say reaches nobody
	}
	if err == nil && got == 0 && asked.Load() > 0 {
		fmt.Fprintln(a.stderr, "nothing came back. Proxies, Envoy among them, drop an HTTP request whose sender has ended: use --http, or keep standard input open.")
	}
	if err != nil {
		return explainUse(target, err)
	}
	return nil
}

// explainReset says that a tunnel was reset after it had brought something, which may or may not have been all.
func explainReset(target string, got int64, err error) error {
	f := explainUse(target, err)
	if told, ok := errors.AsType[*failure](f); ok {
		told.what = fmt.Sprintf("the connection to %s was reset after %d bytes", target, got)
		told.next = "they may be all: a waypoint resets when a server closes behind its HTTP answer; --http knows the end of an answer by its length"
	}
	return f
}
