package h2

import (
	"net/http"
	"strconv"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// headers takes HEADERS and the CONTINUATIONs that follow (RFC 9113, sections 6.2 and 6.10).
func (rd *reader) headers(h header) error {
	c := rd.c
	if h.id == 0 {
		return &connError{http2.ErrCodeProtocol, "HEADERS on stream 0"}
	}
	if c.client && h.length == 1 && h.flags == http2.FlagHeadersEndHeaders {
		return rd.shortAnswer(h)
	}
	d := &rd.dec
	d.begin()
	for f, first := h, true; ; first = false {
		if err := rd.fragment(f, first); err != nil {
			return err
		}
		if f.flags.Has(http2.FlagHeadersEndHeaders) {
			break
		}
		if err := rd.full(rd.head[:]); err != nil {
			return err
		}
		f = parseHeader(rd.head[:])
		if f.kind != http2.FrameContinuation || f.id != h.id {
			return &connError{http2.ErrCodeProtocol, "a header block that is interrupted"}
		}
		if f.length > c.cfg.maxFrameSize() {
			return &connError{http2.ErrCodeFrameSize, "a CONTINUATION that is too large"}
		}
		rd.lock()
		if err := rd.cost(10); err != nil {
			return err
		}
	}
	if err := d.hpack.Close(); err != nil {
		return &connError{http2.ErrCodeCompression, "a header block that ends within a field"}
	}
	rd.lock()
	list := d.end()
	if d.bad || !list.pseudos() {
		return rd.badHeaders(h.id, http2.ErrCodeProtocol)
	}
	if c.client {
		return rd.onAnswer(h, list, d.long)
	}
	return rd.onConnect(h, list, d.long)
}

// fragment decodes the payload of a HEADERS or CONTINUATION.
func (rd *reader) fragment(h header, first bool) error {
	d := &rd.dec
	d.encoded -= int(h.length)
	if d.parts--; d.encoded < 0 || d.parts < 0 {
		return &connError{http2.ErrCodeEnhanceYourCalm, "a header block without end"}
	}
	if h.length == 0 {
		return nil
	}
	if n := int(h.length); rd.w-rd.r >= n { // as a rule
		err := d.write(h, rd.buf.B[rd.r:rd.r+n], first)
		rd.advance(n)
		return err
	}
	buf := bufpool.Get(int(h.length))
	defer buf.Free()
	p := buf.B[:h.length]
	if err := rd.full(p); err != nil {
		return err
	}
	return d.write(h, p, first)
}

// write decodes the payload p of a HEADERS or CONTINUATION.
func (d *decoder) write(h header, p []byte, first bool) error {
	if first {
		pad := 0
		if h.flags.Has(http2.FlagHeadersPadded) {
			pad, p = int(p[0]), p[1:]
		}
		if h.flags.Has(http2.FlagHeadersPriority) {
			if len(p) < 5 {
				return &connError{http2.ErrCodeFrameSize, "HEADERS too short for their priority"}
			}
			p = p[5:]
		}
		if pad > len(p) {
			// The block is lost, and with it the state of the decoder.
			return &connError{http2.ErrCodeProtocol, "padding longer than its frame"}
		}
		p = p[:len(p)-pad]
	}
	if _, err := d.hpack.Write(p); err != nil {
		return &connError{http2.ErrCodeCompression, "a header block that cannot be decoded"}
	}
	return nil
}

// shortAnswer is a client's HEADERS of one byte: ":status: 200" and nothing else, as a rule.
func (rd *reader) shortAnswer(h header) error {
	b := rd.four[:1]
	if err := rd.full(b); err != nil {
		return err
	}
	if b[0] != statusOK {
		rd.dec.begin()
		if _, err := rd.dec.hpack.Write(b); err != nil {
			return &connError{http2.ErrCodeCompression, "a header block that cannot be decoded"}
		}
		if err := rd.dec.hpack.Close(); err != nil {
			return &connError{http2.ErrCodeCompression, "a header block that ends within a field"}
		}
		rd.lock()
		list := rd.dec.end()
		if rd.dec.bad || !list.pseudos() {
			return rd.badHeaders(h.id, http2.ErrCodeProtocol)
		}
		return rd.onAnswer(h, list, rd.dec.long)
	}
	rd.lock()
	return rd.onAnswer(h, &okList, false)
}

// okList is what nearly every answer says.
var okList = headerList{fields: []hpack.HeaderField{{Name: ":status", Value: "200"}}}

// badHeaders answers a header list that breaks the rules. mu is held.
func (rd *reader) badHeaders(id uint32, code http2.ErrCode) error {
	if err := rd.cost(10); err != nil {
		return err
	}
	c := rd.c
	if !c.client && id > c.lastPeer {
		if id%2 == 0 {
			return &connError{http2.ErrCodeProtocol, "an even stream of a client"}
		}
		c.lastPeer = id
		c.past.note(pastStream(id))
	}
	if c.idle(id) {
		return &connError{http2.ErrCodeProtocol, "a malformed frame on an idle stream"}
	}
	if s := c.streams[id]; s != nil {
		s.reset(code)
		return nil
	}
	_ = c.cw.WriteRSTStream(id, code)
	return nil
}

// onAnswer takes a client's HEADERS; mu is held.
func (rd *reader) onAnswer(h header, list *headerList, long bool) error {
	c := rd.c
	s, ended := c.streams[h.id], h.flags.Has(http2.FlagHeadersEndStream)
	switch {
	case s == nil && c.idle(h.id):
		return &connError{http2.ErrCodeProtocol, "HEADERS on an idle stream"}
	case s == nil:
		return rd.behind(h.id)
	case s.status != 0:
		return rd.onTrailers(s, list, long, ended)
	}
	status := statusCode(list.pseudo(":status"))
	switch {
	case long || status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
		return rd.provoked(s, http2.ErrCodeProtocol)
	case status < 200: // an interim answer
		if ended {
			return rd.provoked(s, http2.ErrCodeProtocol)
		}
		return rd.cost(perReset) // one would do
	}
	s.status = uint16(status)
	if len(list.fields) > 1 {
		s.fields = list
	}
	if status != http.StatusOK {
		_ = c.cw.WriteRSTStream(s.id, http2.ErrCodeCancel)
		s.end(&StatusError{Status: status})
		s.forget()
		return nil
	}
	s.answer()
	if ended {
		c.endOfStream(s)
	}
	return nil
}

// statusCode is a status, or 0 for what is none.
func statusCode(text string) int {
	if code, err := strconv.Atoi(text); err == nil {
		return code
	}
	return 0
}

// onTrailers takes HEADERS that follow those that opened or answered a stream. mu is held.
func (rd *reader) onTrailers(s *Stream, list *headerList, long, ended bool) error {
	switch {
	case s.recvEnd:
		return rd.provoked(s, http2.ErrCodeStreamClosed)
	case !ended || long || !list.trailers():
		return rd.provoked(s, http2.ErrCodeProtocol)
	}
	rd.c.endOfStream(s)
	return nil
}

// onConnect takes a server's HEADERS; mu is held.
func (rd *reader) onConnect(h header, list *headerList, long bool) error {
	c, id, ended := rd.c, h.id, h.flags.Has(http2.FlagHeadersEndStream)
	if s := c.streams[id]; s != nil {
		return rd.onTrailers(s, list, long, ended)
	}
	if id%2 == 0 {
		return &connError{http2.ErrCodeProtocol, "an even stream of a client"}
	}
	if id <= c.lastPeer {
		return rd.behind(id)
	}
	if c.drain == drainLast {
		return nil // above the last stream: the peer opens it elsewhere
	}
	c.lastPeer = id
	switch {
	case uint32(len(c.streams)) >= c.cfg.maxStreams():
		return rd.refuse(id, http2.ErrCodeRefusedStream, 2*perReset)
	case c.handlers >= c.cfg.maxStreams(): // we are slow to notice the end of others
		return rd.refuse(id, http2.ErrCodeRefusedStream, 2)
	case long:
		return rd.refuse(id, http2.ErrCodeEnhanceYourCalm, 2*perReset)
	case !list.request():
		return rd.refuse(id, http2.ErrCodeProtocol, 2*perReset)
	}
	t := c.fresh()
	s := t.Stream()
	c.begin(s, id)
	s.fields = list
	s.recvEnd = ended
	c.handlers++
	c.serving.Add(1)
	go c.serve(t)
	return nil
}

// serve gives a stream to the server's user.
func (c *Conn) serve(t Tunnel) {
	defer c.serving.Done()
	t.Serve()
	c.mu.Lock()
	if t.Stream().forward() == nil { // else the socket counts on
		c.handlers--
	}
	c.mu.Unlock()
}
