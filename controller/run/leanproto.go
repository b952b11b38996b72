package run

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Numbers of fields, as Kubernetes' generated.proto has them.
const (
	unknownRaw = 2 // of the envelope that every message is in

	listItems = 2

	objectMeta, objectSpec, objectStatus = 1, 2, 3

	metaName, metaNamespace, metaCreated, metaDeleted, metaLabels = 1, 3, 8, 9, 11
	metaAnnotations, metaOwners, metaManagedFields, ownerKind     = 12, 13, 17, 1

	podContainers, podAccount, podHostNetwork, podInitContainers = 2, 8, 11, 20

	containerName, containerImage, containerArgs, containerPorts                    = 1, 2, 4, 6
	containerLiveness, containerReadiness, containerStartup, containerRestartPolicy = 10, 11, 22, 24

	statusPhase, statusConditions, statusPodIP, statusContainers = 1, 2, 6, 8

	conditionType, conditionStatus = 1, 2

	containerStatusName, containerStatusState = 1, 2
)

// envelope is what a message of Kubernetes begins with.
const envelope = "k8s\x00"

// message says what is kept of a protobuf message.
type message struct {
	// only: fields that are not in fields are dropped. Else they are kept.
	only   bool
	fields map[protowire.Number]field
}

// field says what is kept of a field. The zero value is all of it.
type field struct {
	// keeps says whether one of this value is kept. Nil: each is.
	keeps func(value []byte) bool
	// in is what is kept of the message that it is. Nil: all.
	in *message
}

// leanObjects are lists of any kind without what nobody looks at.
func leanObjects() *message {
	return listOf(&message{fields: map[protowire.Number]field{
		objectMeta: {in: &message{fields: map[protowire.Number]field{
			metaAnnotations:   {keeps: func(entry []byte) bool { return string(first(entry)) != corev1.LastAppliedConfigAnnotation }},
			metaManagedFields: {keeps: func([]byte) bool { return false }},
		}}},
	}})
}

// leanPods are lists of pods, with what keeper.pod looks at.
func leanPods() *message {
	container := &message{only: true, fields: map[protowire.Number]field{
		containerName: {}, containerImage: {}, containerArgs: {}, containerPorts: {}, containerLiveness: {}, containerReadiness: {}, containerStartup: {},
		containerRestartPolicy: {},
	}}
	capture := [][]byte{[]byte(`"f:` + plan.AnnotationRedirection + `"`), []byte(`"f:` + plan.LabelDataplaneMode + `"`)}
	return listOf(&message{only: true, fields: map[protowire.Number]field{
		objectMeta: {in: &message{only: true, fields: map[protowire.Number]field{
			metaName: {}, metaNamespace: {}, metaCreated: {}, metaDeleted: {}, metaLabels: {},
			metaOwners:      {in: &message{only: true, fields: map[protowire.Number]field{ownerKind: {}}}},
			metaAnnotations: {keeps: func(entry []byte) bool { return ours(string(first(entry))) }},
			metaManagedFields: {keeps: func(entry []byte) bool {
				return slices.ContainsFunc(capture, func(key []byte) bool { return bytes.Contains(entry, key) })
			}},
		}}},
		objectSpec: {in: &message{only: true, fields: map[protowire.Number]field{
			podContainers: {in: container}, podInitContainers: {in: container}, podAccount: {}, podHostNetwork: {},
		}}},
		objectStatus: {in: &message{only: true, fields: map[protowire.Number]field{
			statusPhase: {}, statusPodIP: {},
			statusConditions: {
				keeps: func(condition []byte) bool { return string(first(condition)) == string(corev1.PodReady) },
				in:    &message{only: true, fields: map[protowire.Number]field{conditionType: {}, conditionStatus: {}}},
			},
			statusContainers: {in: &message{only: true, fields: map[protowire.Number]field{containerStatusName: {}, containerStatusState: {}}}},
		}}},
	}})
}

// listOf is the envelope of a list of objects.
func listOf(item *message) *message {
	return &message{fields: map[protowire.Number]field{unknownRaw: {in: &message{fields: map[protowire.Number]field{listItems: {in: item}}}}}}
}

// first is the text of the first field of a message, where it has the number 1: the key of an entry of a map, or the type of a condition. Else it is nil.
func first(message []byte) []byte {
	num, typ, n := protowire.ConsumeTag(message)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return nil
	}
	text, n := protowire.ConsumeBytes(message[n:])
	if n < 0 {
		return nil
	}
	return text
}

// trim appends a page of a list, as the API server sends it, as far as it is kept. It says whether it can read the page.
func (m *message) trim(out, page []byte) ([]byte, bool) {
	rest, is := bytes.CutPrefix(page, []byte(envelope))
	if !is {
		return nil, false
	}
	return m.append(append(out, envelope...), rest)
}

// append appends what is kept of a message.
func (m *message) append(out, in []byte) ([]byte, bool) {
	for len(in) > 0 {
		num, typ, head := protowire.ConsumeTag(in)
		if head < 0 {
			return nil, false
		}
		n := protowire.ConsumeFieldValue(num, typ, in[head:])
		if n < 0 {
			return nil, false
		}
		whole := in[:head+n]
		in = in[head+n:]
		f, known := m.fields[num]
		if !known && m.only {
			continue
		}
		if typ != protowire.BytesType || f.keeps == nil && f.in == nil {
			out = append(out, whole...)
			continue
		}
		value, _ := protowire.ConsumeBytes(whole[head:])
		switch {
		case f.keeps != nil && !f.keeps(value):
		case f.in == nil:
			out = append(out, whole...)
		default:
			var ok bool
			if out, ok = f.in.within(append(out, whole[:head]...), value); !ok {
				return nil, false
			}
		}
	}
	return out, true
}

// within appends what is kept of a message, with its length before it.
func (m *message) within(out, in []byte) ([]byte, bool) {
	at := len(out)
	room := protowire.SizeVarint(uint64(len(in))) // it gets no longer
	out, ok := m.append(append(out, make([]byte, room)...), in)
	if !ok {
		return nil, false
	}
	length := uint64(len(out) - at - room)
	head := protowire.SizeVarint(length)
	if head < room {
		copy(out[at+head:], out[at+room:])
		out = out[:len(out)-room+head]
	}
	protowire.AppendVarint(out[:at], length)
	return out, true
}
