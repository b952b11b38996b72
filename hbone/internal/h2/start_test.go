package h2

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

func TestOptimisticDataTravelsWithTheRequest(t *testing.T) {
	got := make(chan string, 1)
	a, b := tcpPair(t)
	server := NewServer(b, Config{}, func(s *Stream) {
		// The answer comes after the data: who waits for it before he writes would wait for ever.
		buf := make([]byte, 5)
		_, _ = io.ReadFull(s, buf)
		got <- string(buf)
		_ = s.Respond()
		_, _ = s.Write([]byte("world"))
		_ = s.CloseWrite()
	})
	client := NewClient(a, Config{})
	defer server.Close()
	defer client.Close()
	s, err := client.Start(connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(); err != nil {
		t.Errorf("before the answer: %v", err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(s); err != nil || string(back) != "world" {
		t.Errorf("read %q, %v", back, err)
	}
	if g := <-got; g != "hello" {
		t.Errorf("the server read %q", g)
	}
	_ = s.Await(t.Context())
	if err := s.Answer(); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

func TestRefusalReachesReadAndWriteAfterStart(t *testing.T) {
	for _, how := range []string{"status", "refused"} {
		a, b := tcpPair(t)
		server := NewServer(b, Config{}, func(s *Stream) {
			if how == "status" {
				_ = s.Refuse(503)
			} else {
				s.Reset(http2.ErrCodeRefusedStream)
			}
		})
		client := NewClient(a, Config{})
		s, err := client.Start(connect("10.0.0.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("lost"))
		_, rerr := s.Read(make([]byte, 1))
		_, werr := s.Write([]byte("x"))
		_ = s.Await(t.Context())
		for op, err := range map[string]error{"read": rerr, "write": werr, "answer": s.Answer()} {
			status, ok := errors.AsType[*StatusError](err)
			if how == "status" && (!ok || status.Status != 503) || how == "refused" && !errors.Is(err, ErrUnprocessed) {
				t.Errorf("%s: %s gave %v", how, op, err)
			}
		}
		client.Close()
		server.Close()
	}
}

func TestStatsCount(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{})
	a, b := tunnel(t, client, streams)
	for range 10 {
		if _, err := a.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	out, in := client.Stats(), server.Stats()
	if out.BytesOut != 1e6 || in.BytesIn != 1e6 || out.BytesIn != 0 || in.BytesOut != 0 {
		t.Errorf("client %+v, server %+v: want 1000000 bytes up", out, in)
	}
	if out.Streams != 1 || out.Opened != 1 || in.Opened != 1 {
		t.Errorf("client %+v, server %+v: want one stream", out, in)
	}
	if out.RTT <= 0 || out.Age <= 0 {
		t.Errorf("client %+v: no round trip or age", out)
	}
}
