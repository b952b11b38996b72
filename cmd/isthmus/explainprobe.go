package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/controller/explain"
	"github.com/isthmus-mesh/isthmus/controller/policy"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// liveDetail is what was seen by trying.
type liveDetail struct {
	Identity string        `json:"identity"` // ours
	Probes   []probeDetail `json:"probes"`
}

// What comes of a probe.
const (
	probeAllowed = "allow"
	probeDenied  = "deny"
	probeFailed  = "failed" // nobody said that it was for a policy
	probeSkipped = "skipped"
)

// probeDetail is one try.
type probeDetail struct {
	Way       int      `json:"way"` // its number, from 1
	Target    string   `json:"target,omitempty"`
	Path      []string `json:"path,omitempty"` // the hops that were taken
	Predicted string   `json:"predicted"`
	Result    string   `json:"result"` // allow, deny, failed or skipped
	Said      string   `json:"said"`
	// Differs says where what was told is not what was seen. Empty: nowhere.
	Differs string `json:"differs,omitempty"`
	// Unclear says why the probe tells nothing: no policy is known to have ended it. Empty: it tells.
	Unclear string `json:"unclear,omitempty"`

	viaWaypoint, doubted, untaken bool
}

// refusedBy notes a dial that failed.
func (d *probeDetail) refusedBy(told, err error) {
	d.Result, d.Said = probeFailed, oneLine(told.Error())
	if f, ok := errors.AsType[*failure](told); ok && f.where != "" {
		d.Said = f.where + ": " + d.Said
	}
	if e, ok := errors.AsType[*hbone.DialError](err); ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		d.Result = probeDenied
	}
}

// opened notes whether a connection without a request stays: who denies one closes it.
func (d *probeDetail) opened(ctx context.Context, conn net.Conn) {
	d.Result, d.Said = probeAllowed, "the connection is open"
	const wait = time.Second
	if ctx.Err() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		d.Result, d.Said = probeFailed, "the connection was closed at once: "+oneLine(err.Error())
	}
}

// asked notes an answer, or that there was none.
func (d *probeDetail) asked(res *probed, err error) {
	if err != nil {
		d.Result, d.Said = probeFailed, oneLine(err.Error())
		if e, ok := errors.AsType[*hbone.DialError](err); ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
			d.Result = probeDenied
		}
		return
	}
	d.Result, d.Said = probeAllowed, "HTTP "+res.status
	switch {
	case res.code == http.StatusForbidden && strings.HasPrefix(res.body, "RBAC: access denied"):
		d.Result, d.Said = probeDenied, d.Said+", "+res.body
	case res.code == http.StatusUnauthorized && strings.HasPrefix(res.body, "Jwt "):
		d.Result, d.Said = probeDenied, d.Said+", "+oneLine(res.body)
	case res.code == http.StatusServiceUnavailable && d.viaWaypoint && strings.HasPrefix(res.body, "upstream connect error"):
		d.Result, d.Said = probeFailed, d.Said+": the waypoint did not get to a pod, which may refuse it, or not be there"
	}
}

// compare says where prediction and probe differ.
func (d *probeDetail) compare(w *explain.Way) {
	var differs []string
	predicted := false
	for _, h := range w.Hops {
		predicted = predicted || h.To.Kind == explain.NodeWaypoint
	}
	if len(d.Path) > 0 && predicted != d.viaWaypoint {
		told := map[bool]string{true: "through a waypoint", false: "straight to the pods"}
		differs = append(differs, fmt.Sprintf("it was to lead %s, and leads %s", told[predicted], told[d.viaWaypoint]))
	}
	switch {
	case d.Result == probeFailed && w.Verdict == policy.Allow:
		d.Unclear = "it was to be allowed, and failed without a word of a policy: who is called may be down, or a policy behind may refuse it"
	case d.Result == probeFailed && w.Verdict == policy.Deny && !d.viaWaypoint: // behind a waypoint a refusal looks like that
		d.Unclear = "it was to be denied, and failed without a word of a policy: that may be for another reason"
	case w.Verdict == policy.Allow && d.Result == probeDenied:
		differs = append(differs, "it was to be allowed, and did not get through")
	case w.Verdict == policy.Deny && d.Result == probeAllowed:
		differs = append(differs, "it was to be denied, and got through")
	}
	d.Differs, d.doubted = strings.Join(differs, "; "), w.Doubt != "" || w.Share > 0
}

// settle lets a way in doubt differ where another to the same target is as it was told: that one is taken.
func (l *liveDetail) settle() {
	for i := range l.Probes {
		d := &l.Probes[i]
		if !d.doubted || d.Differs == "" {
			continue
		}
		for _, other := range l.Probes {
			if other.Way != d.Way && other.Target == d.Target && other.Result != probeSkipped && other.Differs == "" {
				d.Said += fmt.Sprintf("; this way was in doubt, and way %d is the one that is taken", other.Way)
				d.Differs, d.untaken = "", true
				break
			}
		}
	}
}

// print shows what was tried.
func (l *liveDetail) print(p *page) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, "tried as "+l.Identity))
	for _, d := range l.Probes {
		c, verdict := green, "as told"
		switch {
		case d.Result == probeSkipped:
			c, verdict = grey, "not tried"
		case d.untaken:
			c, verdict = grey, "not taken"
		case d.Differs != "":
			c, verdict = red, "differs"
		case d.Unclear != "":
			c, verdict = yellow, "tells nothing"
		case d.Predicted == policy.Depends.String():
			c, verdict = yellow, "told to depend"
		}
		text := fmt.Sprintf("way %d: %s, %s: %s", d.Way, verdict, d.Result, d.Said)
		for _, more := range []string{d.Differs, d.Unclear} {
			if more != "" {
				text += "; " + more
			}
		}
		if d.Target != "" {
			text = d.Target + ", " + text
		}
		for i, line := range wrap(clean(text), cmp.Or(p.width, explain.Width)-4) {
			fmt.Fprintf(p.w, "%s%s\n", map[bool]string{true: "  ", false: "    "}[i == 0], p.paint(c, line))
		}
	}
}

// failure is the error of probes that differ.
func (l *liveDetail) failure() error {
	for _, d := range l.Probes {
		if d.Differs != "" {
			return &failure{
				what: "the probe is not what was told: " + d.Differs, where: d.Target, err: errors.New(d.Said),
				next: "if something was changed just now, try again; else see what istiod told the proxies: istioctl ztunnel-config all, istioctl proxy-status",
			}
		}
	}
	for _, d := range l.Probes {
		if d.Unclear != "" && !d.untaken {
			return &failure{
				what: "the probe tells nothing: " + d.Unclear, where: d.Target, err: errors.New(d.Said),
				next: "see that the Service has ready pods, and try again; the access logs of waypoint and ztunnel say who ended it",
			}
		}
	}
	return nil
}
