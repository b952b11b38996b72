package hbone

import (
	"crypto/x509"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// notTrusted is the reason of a PeerError whose chain holds.
const notTrusted = "it is not to be trusted"

// review is what a connection's peer is looked at by, again and again. Its goroutine is the one that watches the connection.
type review struct {
	by    Reviewer // nil: nobody looks
	chain []*x509.Certificate
	again <-chan struct{} // nil: never
}

// newReview begins before the handshake, so that no change is missed.
func newReview(id Identity) review {
	r, ok := id.(Reviewer)
	if !ok {
		return review{}
	}
	return review{by: r, again: r.Rechecks()}
}

// lookAgain ends c when its peer is believed no more.
func (l *link) lookAgain(c *h2.Conn) {
	rv := &l.review
	rv.again = rv.by.Rechecks() // before the look
	if err := rv.by.CheckPeer(rv.chain); err != nil {
		rv.again = nil
		c.Abort(&PeerError{Got: l.peer, Reason: notTrusted, Err: err}, "your certificate is trusted no more")
	}
}

// reviewUntil looks whenever it should, until done is closed.
func (l *link) reviewUntil(done <-chan struct{}, c *h2.Conn) {
	for {
		select {
		case <-done:
			return
		case <-l.review.again:
			l.lookAgain(c)
		}
	}
}
