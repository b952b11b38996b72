package hbonetest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2"
)

// Two peers that talk to each other: what one sends is what the other gets.
func TestFramesArriveAsTheyWereSent(t *testing.T) {
	a, b := hbonetest.Pipe()
	client, server := hbonetest.Client(t, a), hbonetest.Server(t, b)
	client.Manual, server.Manual = true, true
	frames := []hbonetest.Frame{
		hbonetest.Settings{Ack: true},
		hbonetest.Open(1, "10.0.0.7:8080"),
		hbonetest.Data{Stream: 1, Bytes: []byte("hello")},
		hbonetest.Data{Stream: 1, Bytes: []byte{}, End: true},
		hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel},
		hbonetest.Ping{Data: [8]byte{1, 2}},
		hbonetest.GoAway{Last: 7, Code: http2.ErrCodeProtocol, Debug: "why"},
		hbonetest.WindowUpdate{Stream: 3, Increment: 9},
		hbonetest.Raw{Type: 0x42, Flags: 1, Stream: 5, Payload: []byte("?")},
	}
	server.WantSettings()
	client.WantSettings()
	for _, f := range frames {
		client.Send(f)
		got, err := server.Next()
		if err != nil {
			t.Fatalf("%T: %v", f, err)
		}
		if diff := cmp.Diff(f, got); diff != "" {
			t.Errorf("%T differs: %s", f, diff)
		}
	}
}

func TestPaddingPriorityAndContinuationAreTakenOff(t *testing.T) {
	a, b := hbonetest.Pipe()
	client, server := hbonetest.Client(t, a), hbonetest.Server(t, b)
	client.Send(hbonetest.Data{Stream: 1, Bytes: []byte("x"), Pad: 200})
	server.WantData(1, []byte("x"))
	client.Send(hbonetest.Headers{Stream: 3, Fields: hbonetest.Connect("a:1"), Pad: 3, Weight: 5, DependsOn: 1})
	if id := server.WantConnect("a:1"); id != 3 {
		t.Errorf("stream %d", id)
	}
	// :method CONNECT and :authority as literals, cut in the middle.
	block := []byte("\x02\x07CONNECT\x01\x03b:2")
	client.Send(hbonetest.Headers{Stream: 5, Block: block[:4], Open: true}, hbonetest.Continuation{Stream: 5, Block: block[4:6], Open: true},
		hbonetest.Continuation{Stream: 5, Block: block[6:]})
	if id := server.WantConnect("b:2"); id != 5 {
		t.Errorf("stream %d", id)
	}
}

func TestPeersAnswerSettingsAndPings(t *testing.T) {
	a, b := hbonetest.Pipe()
	client, server := hbonetest.Client(t, a), hbonetest.Server(t, b, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 7})
	go server.Drain()
	client.WantQuiet()
	if got, ok := client.Setting(http2.SettingMaxConcurrentStreams); got != 7 || !ok {
		t.Errorf("the limit is %d, %t", got, ok)
	}
}

func TestSendDataWaitsForWindows(t *testing.T) {
	a, b := hbonetest.Pipe()
	client, server := hbonetest.Client(t, a), hbonetest.Server(t, b, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	client.WantSettings()
	body := []byte(strings.Repeat("x", 25))
	sent := hbonetest.Go(func() (int, error) { client.SendData(1, body, 4); return 0, nil })
	server.WantData(1, body[:10])
	server.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 15})
	server.WantData(1, body[10:])
	if _, err := sent.Wait(); err != nil {
		t.Fatal(err)
	}
	if stream, conn := client.Credit(1), client.Credit(0); stream != 0 || conn != 65535-25 {
		t.Errorf("credit %d and %d is left", stream, conn)
	}
}

// What a script does not expect must end its test.
func TestWrongFramesFailTheTest(t *testing.T) {
	tests := map[string]struct {
		sent hbonetest.Frame
		want func(p *hbonetest.Peer)
		says string
	}{
		"another authority": {hbonetest.Open(1, "b:2"), func(p *hbonetest.Peer) { p.WantConnect("a:1") }, "want CONNECT a:1"},
		"another status":    {hbonetest.Answer(1, 503), func(p *hbonetest.Peer) { p.WantAnswer(1, 200) }, "503, want 200"},
		"another stream":    {hbonetest.Data{Stream: 3, Bytes: []byte("x")}, func(p *hbonetest.Peer) { p.WantData(1, []byte("x")) }, "stream 3"},
		"other bytes":       {hbonetest.Data{Stream: 1, Bytes: []byte("y")}, func(p *hbonetest.Peer) { p.WantData(1, []byte("x")) }, "not the 1 wanted"},
		"another code":      {hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel}, func(p *hbonetest.Peer) { p.WantReset(1, http2.ErrCodeNo) }, "CANCEL"},
		"a GOAWAY":          {hbonetest.GoAway{Code: http2.ErrCodeNo}, func(p *hbonetest.Peer) { p.WantReset(1, http2.ErrCodeNo) }, "GoAway"},
		"GOAWAY's code":     {hbonetest.GoAway{Code: http2.ErrCodeNo}, func(p *hbonetest.Peer) { p.WantGoAway(http2.ErrCodeProtocol) }, "want GOAWAY PROTOCOL_ERROR"},
		"no quiet":          {hbonetest.Data{Stream: 1}, func(p *hbonetest.Peer) { p.WantQuiet() }, "want nothing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := hbonetest.Pipe()
			record := &recorder{TB: t}
			client, server := hbonetest.Client(t, a), hbonetest.Server(record, b)
			client.Send(tt.sent)
			go client.Drain()
			func() {
				defer func() {
					if r := recover(); r != nil {
						if _, ok := r.(failure); !ok {
							panic(r)
						}
					}
				}()
				tt.want(server)
			}()
			if !strings.Contains(record.text, tt.says) {
				t.Errorf("it says %q, want %q", record.text, tt.says)
			}
		})
	}
}

// recorder is a test whose failure is wanted.
type recorder struct {
	testing.TB
	text string
}

type failure struct{}

func (r *recorder) Fatalf(format string, args ...any) {
	r.text = fmt.Sprintf(format, args...)
	panic(failure{})
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
