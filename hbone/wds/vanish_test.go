package wds_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// vanished speaks HTTP/2 until the client has sent its first request, and then never answers anything, like an istiod whose node is gone.
func vanished(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	acked := false
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if _, ok := f.(*http2.SettingsFrame); ok && !acked {
			acked = true
			if fr.WriteSettings() != nil || fr.WriteSettingsAck() != nil {
				return
			}
		}
	}
}

func TestAnIstiodThatVanishesIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		c, err := wds.New(wds.Config{
			Addresses: []string{"istiod:15010"}, Insecure: true,
			Node: wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge"},
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				client, server := net.Pipe()
				go vanished(server) // ends with the connection
				return client, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(35 * time.Second)
		if n := dials.Load(); n != 1 {
			t.Errorf("%d connections before an answer is overdue", n)
		}
		time.Sleep(25 * time.Second)
		if n := dials.Load(); n != 2 {
			t.Errorf("%d connections after a minute, want a second", n)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}
