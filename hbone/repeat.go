package hbone

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// repeat sends a request again whose tunnel a waypoint has ended for err, in place of an answer. Envoy accepts a tunnel before it knows what for, and ends it at the
// first byte where it does not know the Service (yet), or a policy denies the connection; but it ends one so, too, whose pod has read and reset. So only who may ask
// twice does. The bounds are those of a dial.
func (t *Transport) repeat(r *http.Request, err error) (*http.Response, error) {
	d := t.Dialer
	if !endedByWaypoint(err) || d.retryWithin() == 0 {
		return nil, err
	}
	what := &Route{Target: r.URL.Scheme + "://" + r.URL.Host}
	begun := time.Now()
	try := 1
	for ; try < maxAttempts && time.Since(begun) < d.retryWithin() && d.waitsFor(what); try++ {
		again, ok := repeatable(r)
		switch {
		case !ok:
			return nil, err
		case !d.spend():
			return nil, t.refuse(again, err)
		}
		wait := retryFirst << (try - 1)
		wait -= rand.N(wait / 2)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.Context().Done():
			timer.Stop()
			return nil, t.refuse(again, err)
		}
		d.retrying(TraceRetry{Address: r.URL.Host, Try: try + 1, Waited: wait, Err: err})
		res, nextErr := t.send(again)
		if nextErr == nil {
			d.retried()
			return res, nil
		}
		if err = nextErr; !endedByWaypoint(err) {
			return nil, err
		}
	}
	if try > 1 {
		d.refuses(what)
	}
	return nil, err
}

// endedByWaypoint reports whether err is of a tunnel that a waypoint has ended as it does where it cannot carry it.
func endedByWaypoint(err error) bool {
	e, ok := errors.AsType[*TunnelError](err)
	if !ok || e.Kind != HopWaypoint {
		return false
	}
	reset, ok := errors.AsType[*h2.ResetError](e.Err)
	return ok && reset.Remote && reset.Code == http2.ErrCodeConnect
}
