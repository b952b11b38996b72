package hbonetest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// encoder makes header blocks; its table follows the connection.
type encoder struct {
	buf bytes.Buffer
	enc *hpack.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.enc = hpack.NewEncoder(&e.buf)
	return e
}

func (e *encoder) encode(fields []hpack.HeaderField) []byte {
	e.buf.Reset()
	for _, f := range fields {
		_ = e.enc.WriteField(f) // into memory
	}
	return bytes.Clone(e.buf.Bytes())
}

// reader turns bytes into Frames.
type reader struct {
	br  *bufio.Reader
	dec *hpack.Decoder
}

func newReader(r io.Reader) *reader {
	return &reader{br: bufio.NewReaderSize(r, 64<<10), dec: hpack.NewDecoder(4096, nil)}
}

var errShort = errors.New("a frame is shorter than its type demands")

// next reads one frame; a header block comes with all its CONTINUATIONs.
func (r *reader) next() (Frame, error) {
	raw, err := r.raw()
	if err != nil {
		return nil, err
	}
	p := raw.Payload
	switch raw.Type {
	case http2.FrameSettings:
		return settings(raw)
	case http2.FrameHeaders:
		return r.headers(raw)
	case http2.FrameData:
		body, err := unpad(raw)
		return Data{Stream: raw.Stream, Bytes: body, End: raw.Flags.Has(http2.FlagDataEndStream)}, err
	case http2.FrameRSTStream:
		if len(p) != 4 {
			return nil, errShort
		}
		return Reset{Stream: raw.Stream, Code: http2.ErrCode(binary.BigEndian.Uint32(p))}, nil
	case http2.FramePing:
		if len(p) != 8 {
			return nil, errShort
		}
		return Ping{Data: [8]byte(p), Ack: raw.Flags.Has(http2.FlagPingAck)}, nil
	case http2.FrameGoAway:
		if len(p) < 8 {
			return nil, errShort
		}
		return GoAway{Last: binary.BigEndian.Uint32(p), Code: http2.ErrCode(binary.BigEndian.Uint32(p[4:])), Debug: string(p[8:])}, nil
	case http2.FrameWindowUpdate:
		if len(p) != 4 {
			return nil, errShort
		}
		return WindowUpdate{Stream: raw.Stream, Increment: binary.BigEndian.Uint32(p)}, nil
	}
	return raw, nil
}

func (r *reader) raw() (Raw, error) {
	var h [9]byte
	if _, err := io.ReadFull(r.br, h[:]); err != nil {
		return Raw{}, err
	}
	raw := Raw{Type: http2.FrameType(h[3]), Flags: http2.Flags(h[4]), Stream: binary.BigEndian.Uint32(h[5:]) & (1<<31 - 1)}
	raw.Payload = make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
	_, err := io.ReadFull(r.br, raw.Payload)
	return raw, err
}

func settings(raw Raw) (Frame, error) {
	f := Settings{Ack: raw.Flags.Has(http2.FlagSettingsAck)}
	if len(raw.Payload)%6 != 0 {
		return nil, errShort
	}
	for p := raw.Payload; len(p) > 0; p = p[6:] {
		f.List = append(f.List, http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])})
	}
	return f, nil
}

func unpad(raw Raw) ([]byte, error) {
	if !raw.Flags.Has(http2.FlagDataPadded) {
		return raw.Payload, nil
	}
	if len(raw.Payload) == 0 || int(raw.Payload[0]) >= len(raw.Payload) {
		return nil, errShort
	}
	return raw.Payload[1 : len(raw.Payload)-int(raw.Payload[0])], nil
}

func (r *reader) headers(raw Raw) (Frame, error) {
	block, err := unpad(raw)
	if err != nil {
		return nil, err
	}
	f := Headers{Stream: raw.Stream, End: raw.Flags.Has(http2.FlagHeadersEndStream)}
	if raw.Flags.Has(http2.FlagHeadersPriority) {
		if len(block) < 5 {
			return nil, errShort
		}
		block = block[5:]
	}
	for ended := raw.Flags.Has(http2.FlagHeadersEndHeaders); !ended; {
		more, err := r.raw()
		if err != nil {
			return nil, err
		}
		if more.Type != http2.FrameContinuation || more.Stream != raw.Stream {
			return nil, fmt.Errorf("%v on stream %d instead of CONTINUATION", more.Type, more.Stream)
		}
		block = append(block, more.Payload...)
		ended = more.Flags.Has(http2.FlagContinuationEndHeaders)
	}
	f.Fields, err = r.dec.DecodeFull(block)
	return f, err
}
