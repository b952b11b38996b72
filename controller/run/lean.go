package run

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
)

// Lean is a transport for a client of ReadChecked: it takes from pages of lists, before they are decoded, most of what would be dropped afterwards. That is who
// has set which field, copies of whole objects in annotations, and most of pods. Everything else passes as it is. A page that it cannot read passes too, for
// the decoder to say what is wrong with it.
func Lean(next http.RoundTripper) http.RoundTripper { return &leanTransport{next: next} }

type leanTransport struct {
	next http.RoundTripper
	// buffers are *bytes.Buffer, for pages as they come and as they are handed on.
	buffers sync.Pool
}

func (t *leanTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK || r.Method != http.MethodGet || resp.Header.Get("Content-Encoding") != "" || !r.URL.Query().Has("limit") {
		return resp, err
	}
	pods := path.Base(r.URL.Path) == "pods"
	var trim func(out, page []byte) ([]byte, bool)
	switch is, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case is == runtime.ContentTypeProtobuf && pods:
		trim = leanPods().trim
	case is == runtime.ContentTypeProtobuf:
		trim = leanObjects().trim
	case is == runtime.ContentTypeJSON && !pods: // of pods it matters who has set some fields
		trim = trimJSON
	default:
		return resp, nil
	}
	page := t.buffer()
	_, err = page.ReadFrom(resp.Body)
	if closed := resp.Body.Close(); err == nil {
		err = closed
	}
	if err != nil {
		t.buffers.Put(page)
		return nil, err
	}
	lean := t.buffer()
	lean.Grow(page.Len())
	out, ok := trim(lean.AvailableBuffer(), page.Bytes())
	if ok {
		lean.Write(out)
		page, lean = lean, page
	}
	t.buffers.Put(lean)
	resp.Body = &leanBody{Reader: bytes.NewReader(page.Bytes()), page: page, pool: &t.buffers}
	resp.ContentLength = int64(page.Len())
	resp.Header.Set("Content-Length", strconv.Itoa(page.Len()))
	return resp, nil
}

// CloseIdleConnections reaches what the transport stands before.
func (t *leanTransport) CloseIdleConnections() {
	if c, can := t.next.(interface{ CloseIdleConnections() }); can {
		c.CloseIdleConnections()
	}
}

// buffer is an empty one.
func (t *leanTransport) buffer() *bytes.Buffer {
	b, is := t.buffers.Get().(*bytes.Buffer)
	if !is {
		b = &bytes.Buffer{}
	}
	b.Reset()
	return b
}

// leanBody gives its page back when it is closed.
type leanBody struct {
	io.Reader

	page *bytes.Buffer
	pool *sync.Pool
}

func (b *leanBody) Close() error {
	if b.page != nil {
		b.Reader = http.NoBody
		b.pool.Put(b.page)
		b.page = nil
	}
	return nil
}
