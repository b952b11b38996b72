package wds

import (
	"fmt"
	"sync/atomic"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers what is looked up below
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The fields of a DeltaDiscoveryResponse that are lists.
const (
	resourcesField = 2
	removedField   = 6
)

// maxPerMessage is how many resources, and how many removals, a message may have, or Config.MaxResources if that is more: of nothing but empty ones there
// is room for 30 million, which take a hundred times as much when they are read.
const maxPerMessage = 1_000_000

// codec reads messages of a bounded number of resources, for one stream.
type codec struct {
	encoding.CodecV2
	most    int
	tooMany atomic.Bool // there was a message of more
}

func newCodec(most int) *codec {
	return &codec{CodecV2: encoding.GetCodecV2("proto"), most: max(most, maxPerMessage)}
}

// Unmarshal reads a message.
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	res, ok := v.(*discovery.DeltaDiscoveryResponse)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	if n := elements(buf.ReadOnlyData()); n > c.most {
		c.tooMany.Store(true)
		return fmt.Errorf("a message of more than %d resources", c.most)
	}
	return proto.Unmarshal(buf.ReadOnlyData(), res)
}

// elements is how many resources or removals there are, whichever are more. What cannot be read further is left to who reads it.
func elements(b []byte) int {
	resources, removed := 0, 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		switch num {
		case resourcesField:
			resources++
		case removedField:
			removed++
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			break
		}
		b = b[n+m:]
	}
	return max(resources, removed)
}
