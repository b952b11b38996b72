package h2

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// headerList is what a header block says. It does not change once the decoder has given it, and streams share it.
type headerList struct {
	fields []hpack.HeaderField
	store  [6]hpack.HeaderField // so that a CONNECT as it usually is takes one allocation
}

// pseudo is the value of a pseudo-header field, empty when there is none.
func (l *headerList) pseudo(name string) string {
	if i := l.find(name); i >= 0 {
		return l.fields[i].Value
	}
	return ""
}

func (l *headerList) has(name string) bool { return l.find(name) >= 0 }

// find gives the place of a pseudo-header field, -1 when there is none.
func (l *headerList) find(name string) int {
	for i := range l.fields {
		if !strings.HasPrefix(l.fields[i].Name, ":") {
			break
		}
		if l.fields[i].Name == name {
			return i
		}
	}
	return -1
}

// trailers says that no pseudo-header field is among the fields.
func (l *headerList) trailers() bool {
	return len(l.fields) == 0 || !strings.HasPrefix(l.fields[0].Name, ":")
}

// decoder makes a headerList of the fragments of a block.
type decoder struct {
	hpack   *hpack.Decoder
	max     uint32      // bytes of a list
	list    *headerList // that is being made; nil once it was given
	last    *headerList // that was given last
	left    uint32      // bytes that the list may still take
	encoded int         // bytes that the block may still take
	parts   int         // frames that it may still take
	regular bool        // a field that is no pseudo-header field was seen
	bad     bool        // a field breaks the rules: the stream is refused
	long    bool        // the list is too long
}

func (d *decoder) init(most uint32) {
	d.max = most
	d.hpack = hpack.NewDecoder(4096, d.field)
	d.hpack.SetMaxStringLength(2 * d.mostEncoded()) // which bounds strings already; Huffman's code grows by less
}

// A block of a list that is too long is decoded, for the table that later blocks need, and its stream refused, up to this.
const (
	beyond   = 64 << 10
	maxParts = 128
)

func (d *decoder) mostEncoded() int { return int(min(d.max, 1<<24)) + beyond }

func (d *decoder) begin() {
	if d.list == nil {
		d.list = &headerList{}
	}
	d.list.fields = d.list.store[:0]
	d.left, d.regular, d.bad, d.long = d.max, false, false, false
	d.encoded, d.parts = d.mostEncoded(), maxParts
	d.hpack.SetEmitEnabled(true)
}

// end gives the list: the last one, where this one says the same. Tunnels to one place most often do.
func (d *decoder) end() *headerList {
	if d.last == nil || !slices.Equal(d.last.fields, d.list.fields) {
		d.last, d.list = d.list, nil
	}
	return d.last
}

// field takes a decoded field (RFC 9113, sections 8.2.1 and 8.3).
func (d *decoder) field(f hpack.HeaderField) {
	if strings.HasPrefix(f.Name, ":") {
		d.bad = d.bad || d.regular
	} else {
		d.regular = true
		d.bad = d.bad || !validName(f.Name) || ofConnection(f)
	}
	d.bad = d.bad || !httpguts.ValidHeaderFieldValue(f.Value)
	if size := f.Size(); size > d.left {
		d.left, d.long = 0, true
	} else {
		d.left -= size
	}
	if d.bad || d.long {
		d.hpack.SetEmitEnabled(false)
		return
	}
	d.list.fields = append(d.list.fields, f)
}

// validName is a token without upper-case letters.
func validName(name string) bool {
	for i := range len(name) {
		if b := name[i]; !httpguts.IsTokenRune(rune(b)) || 'A' <= b && b <= 'Z' {
			return false
		}
	}
	return len(name) > 0
}

// ofConnection says that a field speaks of an HTTP/1.1 connection (RFC 9113, section 8.2.2).
func ofConnection(f hpack.HeaderField) bool {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	case "te":
		return f.Value != "trailers"
	}
	return false
}

// pseudos checks that each pseudo-header field is known, comes once, and is of a request or of a response.
func (l *headerList) pseudos() bool {
	request, response := false, false
	for i := range l.fields {
		name := l.fields[i].Name
		switch name {
		case ":method", ":path", ":scheme", ":authority", ":protocol":
			request = true
		case ":status":
			response = true
		default:
			if strings.HasPrefix(name, ":") {
				return false
			}
			return !request || !response
		}
		for j := range i {
			if l.fields[j].Name == name {
				return false
			}
		}
	}
	return !request || !response
}

// request checks the pseudo-header fields of a request (RFC 9113, sections 8.3.1 and 8.5). Extended CONNECT (RFC 8441) is not offered.
func (l *headerList) request() bool {
	if l.has(":protocol") {
		return false
	}
	switch l.pseudo(":method") {
	case "":
		return false
	case http.MethodConnect:
		return !l.has(":scheme") && !l.has(":path") && l.pseudo(":authority") != ""
	}
	return l.pseudo(":scheme") != "" && l.pseudo(":path") != ""
}
