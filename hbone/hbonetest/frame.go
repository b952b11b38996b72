package hbonetest

import (
	"encoding/binary"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frame is what a Peer sends or receives: one of the types of this package.
type Frame interface {
	appendTo(b []byte, enc *encoder) []byte
}

// Settings is a SETTINGS frame.
type Settings struct {
	List []http2.Setting
	Ack  bool
}

// Headers is a HEADERS frame. A received one has the fields of its CONTINUATION frames too.
type Headers struct {
	Stream uint32
	Fields []hpack.HeaderField
	End    bool // END_STREAM
	// Open leaves END_HEADERS out: CONTINUATION follows.
	Open bool
	// Block, when not nil, is sent instead of Fields, as it is.
	Block []byte
	// Pad is how many bytes of padding are sent; zero sends the frame without.
	Pad uint8
	// Priority is sent when DependsOn or Weight is set.
	DependsOn uint32
	Weight    uint8
}

// Continuation is a CONTINUATION frame.
type Continuation struct {
	Stream uint32
	Block  []byte
	Open   bool // without END_HEADERS
}

// Data is a DATA frame.
type Data struct {
	Stream uint32
	Bytes  []byte
	End    bool
	Pad    uint8 // bytes of padding; zero sends the frame without
}

// Reset is a RST_STREAM frame.
type Reset struct {
	Stream uint32
	Code   http2.ErrCode
}

// Ping is a PING frame.
type Ping struct {
	Data [8]byte
	Ack  bool
}

// GoAway is a GOAWAY frame.
type GoAway struct {
	Last  uint32
	Code  http2.ErrCode
	Debug string
}

// WindowUpdate is a WINDOW_UPDATE frame.
type WindowUpdate struct {
	Stream    uint32
	Increment uint32
}

// Priority is a PRIORITY frame.
type Priority struct {
	Stream    uint32
	DependsOn uint32
	Weight    uint8
}

// PushPromise is a PUSH_PROMISE frame.
type PushPromise struct {
	Stream, Promised uint32
	Fields           []hpack.HeaderField
}

// Raw is any frame. What a Peer receives and knows no type for is one.
type Raw struct {
	Type    http2.FrameType
	Flags   http2.Flags
	Stream  uint32
	Payload []byte
	// Length, when not zero, is what the header says instead of the payload's length.
	Length uint32
}

// Bytes is no frame at all: it goes out as it is.
type Bytes []byte

// Connect is the header list of a CONNECT to authority.
func Connect(authority string, more ...hpack.HeaderField) []hpack.HeaderField {
	return append([]hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: authority}}, more...)
}

// Open is a CONNECT to authority on a stream.
func Open(stream uint32, authority string, more ...hpack.HeaderField) Headers {
	return Headers{Stream: stream, Fields: Connect(authority, more...)}
}

// Answer is the answer to a CONNECT: the tunnel stands with status 200, any other ends the stream.
func Answer(stream uint32, status int, more ...hpack.HeaderField) Headers {
	text := string([]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)})
	return Headers{Stream: stream, Fields: append([]hpack.HeaderField{{Name: ":status", Value: text}}, more...), End: status != 200}
}

func frameHeader(b []byte, length int, t http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func flag(set bool, f http2.Flags) http2.Flags {
	if set {
		return f
	}
	return 0
}

func (f Settings) appendTo(b []byte, _ *encoder) []byte {
	b = frameHeader(b, 6*len(f.List), http2.FrameSettings, flag(f.Ack, http2.FlagSettingsAck), 0)
	for _, s := range f.List {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func (f Headers) appendTo(b []byte, enc *encoder) []byte {
	block := f.Block
	if block == nil {
		block = enc.encode(f.Fields)
	}
	flags := flag(f.End, http2.FlagHeadersEndStream) | flag(!f.Open, http2.FlagHeadersEndHeaders) | flag(f.Pad > 0, http2.FlagHeadersPadded)
	length := len(block)
	priority := f.DependsOn != 0 || f.Weight != 0
	if f.Pad > 0 {
		length += 1 + int(f.Pad)
	}
	if priority {
		flags |= http2.FlagHeadersPriority
		length += 5
	}
	b = frameHeader(b, length, http2.FrameHeaders, flags, f.Stream)
	if f.Pad > 0 {
		b = append(b, f.Pad)
	}
	if priority {
		b = append(binary.BigEndian.AppendUint32(b, f.DependsOn), f.Weight)
	}
	b = append(b, block...)
	return append(b, make([]byte, f.Pad)...)
}

func (f Continuation) appendTo(b []byte, _ *encoder) []byte {
	return append(frameHeader(b, len(f.Block), http2.FrameContinuation, flag(!f.Open, http2.FlagContinuationEndHeaders), f.Stream), f.Block...)
}

func (f Data) appendTo(b []byte, _ *encoder) []byte {
	flags := flag(f.End, http2.FlagDataEndStream) | flag(f.Pad > 0, http2.FlagDataPadded)
	if f.Pad == 0 {
		return append(frameHeader(b, len(f.Bytes), http2.FrameData, flags, f.Stream), f.Bytes...)
	}
	b = append(frameHeader(b, len(f.Bytes)+1+int(f.Pad), http2.FrameData, flags, f.Stream), f.Pad)
	b = append(b, f.Bytes...)
	return append(b, make([]byte, f.Pad)...)
}

func (f Reset) appendTo(b []byte, _ *encoder) []byte {
	return binary.BigEndian.AppendUint32(frameHeader(b, 4, http2.FrameRSTStream, 0, f.Stream), uint32(f.Code))
}

func (f Ping) appendTo(b []byte, _ *encoder) []byte {
	return append(frameHeader(b, 8, http2.FramePing, flag(f.Ack, http2.FlagPingAck), 0), f.Data[:]...)
}

func (f GoAway) appendTo(b []byte, _ *encoder) []byte {
	b = frameHeader(b, 8+len(f.Debug), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, f.Last)
	b = binary.BigEndian.AppendUint32(b, uint32(f.Code))
	return append(b, f.Debug...)
}

func (f WindowUpdate) appendTo(b []byte, _ *encoder) []byte {
	return binary.BigEndian.AppendUint32(frameHeader(b, 4, http2.FrameWindowUpdate, 0, f.Stream), f.Increment)
}

func (f Priority) appendTo(b []byte, _ *encoder) []byte {
	b = frameHeader(b, 5, http2.FramePriority, 0, f.Stream)
	return append(binary.BigEndian.AppendUint32(b, f.DependsOn), f.Weight)
}

func (f PushPromise) appendTo(b []byte, enc *encoder) []byte {
	block := enc.encode(f.Fields)
	b = frameHeader(b, 4+len(block), http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, f.Stream)
	return append(binary.BigEndian.AppendUint32(b, f.Promised), block...)
}

func (f Raw) appendTo(b []byte, _ *encoder) []byte {
	length := len(f.Payload)
	if f.Length != 0 {
		length = int(f.Length)
	}
	return append(frameHeader(b, length, f.Type, f.Flags, f.Stream), f.Payload...)
}

func (f Bytes) appendTo(b []byte, _ *encoder) []byte { return append(b, f...) }
