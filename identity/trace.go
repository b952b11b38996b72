package identity

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Trace is told how a Source fares. Each function may be nil; they are called outside all locks, and hold up what they are told of: they must be
// quick.
type Trace struct {
	// Renewed is called when there is a new generation: another certificate, or other roots.
	Renewed func(TraceRenewal)
	// RenewalFailed is called when the authority gave nothing of use.
	RenewalFailed func(TraceRenewal)
	// TrustChanged is called when files of Trust have changed whom the Source believes.
	TrustChanged func(TrustStats)
	// TrustFailed is called when there is something wrong with the files of Trust, once for each thing that is wrong: what they held before is still in force.
	TrustFailed func(error)
}

// TraceRenewal is one call of the authority.
type TraceRenewal struct {
	ID         spiffeid.ID   // zero while there is none
	Generation uint64        // that is held now
	Expires    time.Time     // of the SVID held; zero while there is none
	Took       time.Duration // the call
	Next       time.Duration // until the next call
	Err        error         // RenewalFailed: why
}

func (t *Trace) renewal(r TraceRenewal) {
	switch {
	case t == nil:
	case r.Err != nil && t.RenewalFailed != nil:
		t.RenewalFailed(r)
	case r.Err == nil && t.Renewed != nil:
		t.Renewed(r)
	}
}

func (t *Trace) trust(s TrustStats) {
	if t != nil && t.TrustChanged != nil {
		t.TrustChanged(s)
	}
}

func (t *Trace) trustFailed(err error) {
	if t != nil && t.TrustFailed != nil {
		t.TrustFailed(err)
	}
}
