package node

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestExpansionLeavesWhatItDoesNotKnow(t *testing.T) {
	env := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$(B)": "$(A)", "$$(A)": "$(A)", "$$$(A)": "$1", "$(C)": "$(C)", "$(A": "$(A", "$": "$", "$A": "$A", "a$": "a$", "$()": "$()",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestVolumesChangeAtOnce(t *testing.T) {
	dir := t.TempDir()
	read := func() map[string]string {
		got := map[string]string{}
		for _, name := range []string{"a", "b", "deep/er/c"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				got[name] = string(b)
			}
		}
		return got
	}
	for i, c := range []map[string]string{{"a": "1", "deep/er/c": "2"}, {"a": "1", "deep/er/c": "2"}, {"b": "3"}, {}} {
		before, _ := os.Readlink(filepath.Join(dir, "..data"))
		files := map[string]file{}
		for k, v := range c {
			files[k] = file{[]byte(v), 0o640}
		}
		if err := writeAtomically(dir, files); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, read()); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
		after, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil || (after == before) != (i == 1) {
			t.Errorf("step %d: ..data was %q and is %q, %v", i, before, after, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != len(c)+2 {
			t.Errorf("step %d: something is left: %v", i, entries)
		}
	}
	if err := writeAtomically(dir, map[string]file{"../out": {}}); err == nil {
		t.Error("a file outside of the volume was written")
	}
}

func TestEndpointsThatServe(t *testing.T) {
	slice := func(name, port string, n int32, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &n}}, Endpoints: eps}
	}
	ep := func(ip string, ready, serving, ending bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &ending}}
	}
	svc := func(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: ports}}
	}
	port := func(name string, n int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: n, TargetPort: intstr.FromString("named")}
	}
	at := netip.MustParseAddrPort
	got := vips([]*corev1.Service{
		svc("a", "10.96.0.9", port("http", 80), port("admin", 81), corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}),
		svc("ending", "10.96.0.8", port("", 80)),
		svc("headless", "None", port("", 80)),
	}, []*discoveryv1.EndpointSlice{
		slice("a", "http", 8080, ep("10.244.1.3", true, true, false), ep("10.244.1.2", true, true, false), ep("10.244.1.4", false, false, false), ep("10.244.1.5", false, true, true)),
		slice("a", "http", 9090, ep("10.244.1.2", true, true, false)),
		slice("ending", "", 8080, ep("10.244.1.6", false, true, true), ep("10.244.1.7", false, false, true)),
		slice("headless", "", 8080, ep("10.244.1.6", true, true, false)),
	}, at("10.96.0.1:443"), at("10.244.0.1:6443"))
	want := []vip{
		{protoTCP, at("10.96.0.1:443"), []netip.AddrPort{at("10.244.0.1:6443")}},
		{protoTCP, at("10.96.0.8:80"), []netip.AddrPort{at("10.244.1.6:8080")}},
		{protoUDP, at("10.96.0.9:53"), nil},
		{protoTCP, at("10.96.0.9:80"), []netip.AddrPort{at("10.244.1.2:8080"), at("10.244.1.2:9090"), at("10.244.1.3:8080")}},
		{protoTCP, at("10.96.0.9:81"), nil},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(vip{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestPacketsThatAreCutShort(t *testing.T) {
	b := make([]byte, 44)
	b[0], b[9] = 0x45, 6
	binary.BigEndian.PutUint16(b[2:], 44)
	copy(b[12:], []byte{10, 244, 1, 2, 10, 244, 1, 3})
	binary.BigEndian.PutUint16(b[20:], 40000)
	binary.BigEndian.PutUint16(b[22:], 8080)
	b[32], b[33] = 5<<4, 0x02
	copy(b[40:], "data")
	p, ok := parseTCP(b)
	if !ok || p.From.String() != "10.244.1.2:40000" || p.To.String() != "10.244.1.3:8080" || !p.SYN || string(p.Payload) != "data" {
		t.Errorf("got %+v, %v", p, ok)
	}
	for n := range 40 {
		if _, ok := parseTCP(b[:n]); ok {
			t.Errorf("%d bytes were taken for a packet", n)
		}
	}
	b[32] = 15 << 4
	if _, ok := parseTCP(b); ok {
		t.Error("a header longer than the packet was taken")
	}
}

func TestDNSAnswersOnlyQuestions(t *testing.T) {
	ask := func(name string, kind dnsmessage.Type) []byte {
		b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
		b.StartQuestions()
		b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET})
		out, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s := shared.player.dns
	for _, c := range []struct {
		name    string
		kind    dnsmessage.Type
		code    dnsmessage.RCode
		answers int
	}{
		{"kubernetes.default.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"KUBERNETES.default.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"kubernetes.default.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, 0},
		{"x.kubernetes.default.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"kubernetes.default.svc.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
	} {
		var m dnsmessage.Message
		if err := m.Unpack(s.answer(ask(c.name, c.kind))); err != nil {
			t.Fatal(c.name, err)
		}
		if m.ID != 7 || !m.Response || m.RCode != c.code || len(m.Answers) != c.answers {
			t.Errorf("%s %v: got %v", c.name, c.kind, m.GoString())
		}
	}
	q := ask("kubernetes.default.svc.cluster.local.", dnsmessage.TypeA)
	for n := range q {
		if out := s.answer(q[:n]); out != nil {
			t.Errorf("%d bytes of a question were answered", n)
		}
	}
	q[2] |= 0x80
	if s.answer(q) != nil {
		t.Error("an answer was answered")
	}
}

func TestStatusKeepsWhatOthersWrote(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	obj := &corev1.Pod{Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "ours"}}}}
	obj.Status.QOSClass = corev1.PodQOSBurstable
	obj.Status.Conditions = []corev1.PodCondition{{Type: "theirs", Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: long}}
	v := podView{ip: netip.MustParseAddr("10.244.1.2"), hostIP: netip.MustParseAddr("10.244.0.1"), initOver: true,
		main: []corev1.ContainerStatus{{Name: "c", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
	s := statusOf(obj, v, metav1.Now())
	if s.QOSClass != corev1.PodQOSBurstable || !conditionTrue(&s, "theirs") || s.Conditions[1].LastTransitionTime != long {
		t.Errorf("overwritten: %+v", s)
	}
	if !conditionTrue(&s, corev1.ContainersReady) || conditionTrue(&s, corev1.PodReady) {
		t.Errorf("ready in spite of its gate: %+v", s.Conditions)
	}
	obj.Status.Conditions = append(obj.Status.Conditions, corev1.PodCondition{Type: "ours", Status: corev1.ConditionTrue})
	if s := statusOf(obj, v, metav1.Now()); !conditionTrue(&s, corev1.PodReady) {
		t.Errorf("not ready: %+v", s.Conditions)
	}
}
