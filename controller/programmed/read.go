package programmed

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The limits of a text, beyond which Read fails with ErrTooLarge.
const (
	// MaxText is how long it may be, in bytes: dumps of large clusters have some hundred MiB.
	MaxText = 512 << 20
	// maxValue is how long one of its values may be, in bytes: the endpoints of one cluster, a certificate.
	maxValue = 32 << 20
	// maxDepth is how deep values may stand in each other where they are passed over.
	maxDepth = 1000
	// maxUpstreams and maxAddresses are how many are kept of all.
	maxUpstreams, maxAddresses = 200_000, 500_000
)

// ErrTooLarge is of a text beyond the limits.
var ErrTooLarge = errors.New("it is larger than what is read")

// ErrUnknown is of a text that is none of those which are known.
var ErrUnknown = errors.New("it is none of Envoy's config_dump or clusters, kgateway's snapshots, Traefik's rawdata")

// Kind says what a text is.
type Kind string

// The kinds.
const (
	EnvoyDump     Kind = "Envoy's config_dump"
	EnvoyClusters Kind = "Envoy's clusters"
	Snapshots     Kind = "kgateway's snapshots"
	RawData       Kind = "Traefik's rawdata"
)

// Dump is what a text tells.
type Dump struct {
	Kind Kind
	// Proxies are those that it is about, each with all that it sends to. It is one, but of Snapshots.
	Proxies []Proxy
}

// Proxy is what one proxy sends to.
type Proxy struct {
	// Key names it in Snapshots; it is empty otherwise.
	Key       string
	Upstreams []Upstream
}

// Upstream is a cluster of Envoy's, or a service of Traefik's.
type Upstream struct {
	Name string
	To   []Address
}

// Address is one that an upstream leads to.
type Address struct {
	Host string // an IP address, or a name
	Port int
	// Via is the address, ip:port, that a tunnel to it begins at. Empty: it is reached without one, or nothing is told of it.
	Via string
}

// Read reads a text to its end, and says what it tells. It blocks as in does. Its errors do not quote the text.
func Read(in io.Reader) (*Dump, error) {
	limited := &budget{in: in, left: MaxText + 1}
	b := bufio.NewReader(limited)
	r := &reader{budget: limited}
	first, err := firstByte(b)
	limited.value = maxValue
	switch {
	case err != nil && !errors.Is(err, io.EOF):
	case first != '{':
		err = r.lines(b)
	default:
		r.dec = json.NewDecoder(b)
		err = r.document()
	}
	switch {
	case err == nil && r.kind == "":
		err = ErrUnknown
	case err == nil:
		r.join()
		return &Dump{Kind: r.kind, Proxies: r.proxies}, nil
	}
	return nil, fmt.Errorf("read what is programmed: %w", plainly(err))
}

// plainly is an error without the text that it is about.
func plainly(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return ErrTooLarge
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("it is no JSON at byte %d", s.Offset)
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a %s stands where a value of another type should, near byte %d", kindOfValue(t.Value), t.Offset)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("it is cut short: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// kindOfValue is the first word of what encoding/json says of a value: a number is quoted behind it.
func kindOfValue(said string) string {
	word, _, _ := bytes.Cut([]byte(said), []byte(" "))
	return string(word)
}

// firstByte is the first byte of a text that is no blank, which is left there.
func firstByte(b *bufio.Reader) (byte, error) {
	for {
		c, err := b.ReadByte()
		switch {
		case err != nil:
			return 0, err
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		default:
			return c, b.UnreadByte()
		}
	}
}

// budget lets through so many bytes, in all and for the value that is read.
type budget struct {
	in          io.Reader
	left, value int64 // value is renewed for each; zero does not count
}

func (b *budget) Read(p []byte) (int, error) {
	most := b.left
	if b.value > 0 {
		most = min(most, b.value)
	}
	if most <= 1 {
		return 0, ErrTooLarge
	}
	n, err := b.in.Read(p[:min(int64(len(p)), most-1)])
	b.left -= int64(n)
	if b.value > 0 {
		b.value -= int64(n)
	}
	return n, err
}

// reader reads JSON of others value by value.
type reader struct {
	dec    *json.Decoder
	budget *budget

	kind      Kind
	proxies   []Proxy
	upstreams []Upstream           // of the proxy that is read
	follows   map[string]string    // by the upstream: the name that its endpoints have
	endpoints map[string][]Address // by that name

	countUp, countTo int
}

// next makes room for one more value.
func (r *reader) next() { r.budget.value = maxValue }

// token is the next token.
func (r *reader) token() (json.Token, error) {
	r.next()
	return r.dec.Token()
}

// value reads one value as a whole.
func (r *reader) value(v any) error {
	r.next()
	return r.dec.Decode(v)
}

// errShape is of a value of another type than it should be.
var errShape = errors.New("a value is of another type than it should be")

// object reads an object; f reads the value of each of its fields. Null is an empty one.
func (r *reader) object(f func(field string) error) error {
	t, err := r.token()
	switch {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('{'):
		return errShape
	}
	for {
		t, err := r.token()
		if err != nil {
			return err
		}
		field, is := t.(string)
		if !is {
			return nil // its end
		}
		if err := f(field); err != nil {
			return err
		}
	}
}

// array reads an array; f reads each of its values. Null is an empty one.
func (r *reader) array(f func() error) error {
	t, err := r.token()
	switch {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('['):
		return errShape
	}
	for {
		r.next()
		if !r.dec.More() {
			_, err := r.token()
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// skip passes over a value, of any length.
func (r *reader) skip() error {
	for depth := 0; ; {
		t, err := r.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return ErrTooLarge
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// document reads the whole of a JSON text: its fields tell what it is.
func (r *reader) document() error {
	whose := map[string]struct {
		kind Kind
		read func() error
	}{
		"configs":          {EnvoyDump, r.envoyConfigs},
		"cluster_statuses": {EnvoyClusters, r.envoyStatuses},
		"data":             {Snapshots, r.snapshots},
		"services":         {RawData, r.traefikServices},
		"tcpServices":      {RawData, r.traefikServices},
		"udpServices":      {RawData, r.traefikServices},
		"routers":          {RawData, r.skip},
	}
	err := r.object(func(field string) error {
		is, known := whose[field]
		if !known {
			return r.skip()
		}
		if r.kind != "" && r.kind != is.kind {
			return ErrUnknown
		}
		r.kind = is.kind
		return is.read()
	})
	if err != nil {
		return err
	}
	if _, err := r.token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more follows behind its end")
		}
		return err
	}
	return nil
}

// add keeps an upstream.
func (r *reader) add(u Upstream) error {
	if r.countUp++; r.countUp > maxUpstreams {
		return ErrTooLarge
	}
	r.upstreams = append(r.upstreams, u)
	return r.count(u.To)
}

func (r *reader) count(to []Address) error {
	if r.countTo += len(to); r.countTo > maxAddresses {
		return ErrTooLarge
	}
	return nil
}

// join gives upstreams the endpoints that stand elsewhere, and ends the proxy that is read. A text with proxies of its own has none besides.
func (r *reader) join() {
	if r.kind == Snapshots && len(r.upstreams) == 0 {
		return
	}
	r.endProxy("")
}

// endProxy ends the proxy that is read.
func (r *reader) endProxy(key string) {
	for i := range r.upstreams {
		if name, follows := r.follows[r.upstreams[i].Name]; follows {
			r.upstreams[i].To = r.endpoints[name]
		}
	}
	r.proxies = append(r.proxies, Proxy{Key: key, Upstreams: r.upstreams})
	r.upstreams, r.follows, r.endpoints = nil, nil, nil
}

// follow notes that the endpoints of an upstream stand elsewhere, by a name.
func (r *reader) follow(upstream, name string) {
	if r.follows == nil {
		r.follows = map[string]string{}
	}
	r.follows[upstream] = name
}

// tell notes endpoints that stand apart from their upstream.
func (r *reader) tell(name string, to []Address) error {
	if r.endpoints == nil {
		r.endpoints = map[string][]Address{}
	}
	if len(r.endpoints) >= maxUpstreams {
		return ErrTooLarge
	}
	r.endpoints[name] = append(r.endpoints[name], to...)
	return r.count(to)
}
