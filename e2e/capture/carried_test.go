package capture

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhoWaitsForAnAnswerIsWaitedFor: a process that ends goes on carrying connections on which something was asked and not answered, for as long as it may, and leaves
// those that are only kept.
func TestWhoWaitsForAnAnswerIsWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		talk func(client, app net.Conn)
		want time.Duration // how long it drains
	}{
		"nothing is carried":      {nil, 0},
		"it does not stand yet":   {nil, drainTime},
		"it was opened just now":  {func(net.Conn, net.Conn) {}, kept},
		"it was answered":         {func(client, app net.Conn) { say(client, app); say(app, client) }, kept},
		"it waits for the answer": {func(client, app net.Conn) { say(client, app) }, drainTime},
		"the answer comes": {func(client, app net.Conn) {
			say(client, app)
			go func() { time.Sleep(2 * time.Second); say(app, client) }()
		}, 2*time.Second + kept},
		"the answer comes, and that is all": {func(client, app net.Conn) {
			say(client, app)
			go func() { time.Sleep(2 * time.Second); say(app, client); app.Close(); client.Close() }()
		}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c carried
				switch {
				case tt.talk != nil:
					client, a := net.Pipe()
					b, app := net.Pipe()
					done := make(chan struct{})
					c.serve(func(x *exchange) {
						defer close(done)
						x.join(a, b)
					})
					defer func() { client.Close(); app.Close(); <-done }()
					synctest.Wait()
					tt.talk(client, app)
				case tt.want > 0:
					dialling := make(chan struct{})
					defer close(dialling)
					c.serve(func(*exchange) { <-dialling })
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), drainTime)
				defer cancel()
				c.drain(ctx)
				if took := time.Since(began); took < tt.want || took > tt.want+kept/5 {
					t.Errorf("it drains for %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// say has one end say something that the other hears.
func say(from, to net.Conn) {
	go io.WriteString(from, "x")
	_, _ = to.Read(make([]byte, 1))
}
