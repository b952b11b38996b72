package controllertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// byWaypoint says why a call of a captured gateway was not lost by the waypoint; empty: it was. From the moment at which a waypoint does not know a Service any
// more it answers 503, or it ends the tunnel which it has accepted for the connection: which way that went the gateway's capture has logged.
func (s *site) byWaypoint(l lostCall, gateway *corev1.Pod) string {
	s.t.Helper()
	text, err := os.ReadFile(s.mesh.Node.LogPath(gateway.Namespace, gateway.Name, "capture"))
	if err != nil {
		return err.Error()
	}
	return lostBy(l.Answer, capture.Entries(string(text)), "/ns/"+s.shop+"/sa/shared")
}

// lostBy is byWaypoint for an access log, and a waypoint whose identity ends with peer.
func lostBy(a apps.Answer, log []capture.Entry, peer string) string {
	if a.Status == 503 && !strings.Contains(a.Body, "RBAC") {
		return ""
	}
	if a.Status != 0 || a.Body != "" {
		return "that is another answer"
	}
	if !strings.HasSuffix(a.Err, "EOF") && !strings.HasSuffix(a.Err, "connection reset by peer") {
		return "the connection did not end"
	}
	var way *capture.Entry
	for i := range log {
		if e := &log[i]; e.Direction == capture.Outbound && e.Source == a.From {
			way = e // the newest of this port
		}
	}
	switch {
	case way == nil:
		return fmt.Sprintf("no connection from %q is logged", a.From)
	case !strings.HasSuffix(way.PeerIdentity, peer):
		return fmt.Sprintf("it did not go to the waypoint: %+v", *way)
	case way.Status != 0 || way.Error != "" && !capture.IsZtunnel(): // a ztunnel writes its line when the connection has ended, and so with its end
		return fmt.Sprintf("the waypoint refused the tunnel: %+v", *way)
	}
	return ""
}

func TestWhatAWaypointLoses(t *testing.T) {
	const waypoint, from = "/ns/shop/sa/shared", "10.244.0.9:40000"
	log := []capture.Entry{
		{Direction: capture.Outbound, Source: from, PeerIdentity: "spiffe://cluster.local/ns/shop/sa/orders"},
		{Direction: capture.Outbound, Source: from, PeerIdentity: "spiffe://cluster.local" + waypoint},
		{Direction: capture.Outbound, Source: "10.244.0.9:40001", PeerIdentity: "spiffe://cluster.local" + waypoint, Status: 401, Error: "refused"},
		{Direction: capture.Outbound, Source: "10.244.0.9:40002", PeerIdentity: "spiffe://cluster.local/ns/shop/sa/orders"},
		{Direction: capture.Outbound, Source: "10.244.0.9:40003", Error: "dial"},
		{Direction: capture.Inbound, Source: "10.244.0.9:40004", PeerIdentity: "spiffe://cluster.local" + waypoint},
	}
	const ended = `Get "http://10.96.0.7/": EOF`
	for name, tt := range map[string]struct {
		answer apps.Answer
		why    string // a part of it; empty: the waypoint lost it
	}{
		"its 503":                        {apps.Answer{Status: 503, Body: "no healthy upstream"}, ""},
		"a tunnel that it ended":         {apps.Answer{Err: ended, From: from}, ""},
		"a tunnel that it reset":         {apps.Answer{Err: "read tcp: connection reset by peer", From: from}, ""},
		"its policy":                     {apps.Answer{Status: 503, Body: "RBAC: access denied"}, "another answer"},
		"a refusal":                      {apps.Answer{Status: 403}, "another answer"},
		"an answer that is cut short":    {apps.Answer{Status: 200, Err: "unexpected EOF", From: from}, "another answer"},
		"a call that hangs":              {apps.Answer{Err: "context deadline exceeded (Client.Timeout exceeded while awaiting headers)", From: from}, "did not end"},
		"a tunnel that it refused":       {apps.Answer{Err: ended, From: "10.244.0.9:40001"}, "refused the tunnel"},
		"a tunnel to the pod":            {apps.Answer{Err: ended, From: "10.244.0.9:40002"}, "did not go to the waypoint"},
		"no tunnel":                      {apps.Answer{Err: ended, From: "10.244.0.9:40003"}, "did not go to the waypoint"},
		"somebody's tunnel to the pod":   {apps.Answer{Err: ended, From: "10.244.0.9:40004"}, "no connection"},
		"a connection that nobody knows": {apps.Answer{Err: ended, From: "10.244.0.9:5"}, "no connection"},
		"none":                           {apps.Answer{Err: ended}, "no connection"},
	} {
		t.Run(name, func(t *testing.T) {
			if why := lostBy(tt.answer, log, waypoint); (why == "") != (tt.why == "") || !strings.Contains(why, tt.why) {
				t.Errorf("it says %q, want %q", why, tt.why)
			}
		})
	}
}
