package hbone_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// backendPipe is a connection to an application that package net knows nothing of.
type backendPipe struct {
	net.Conn
	ended, reset atomic.Bool
}

func (b *backendPipe) CloseWrite() error { b.ended.Store(true); return nil }
func (b *backendPipe) Reset()            { b.reset.Store(true) }

// A client has sent all and is gone. How long its server holds what is left depends on what the application does with it.
func TestLeftoversHaveALimitInTime(t *testing.T) {
	const size = 200_000
	tests := map[string]struct {
		read  func(app net.Conn) // in a goroutine of its own
		least time.Duration      // until the application is given up
		most  time.Duration
		ended bool // it got all, and the end
	}{
		"nothing is read": {
			read:  func(net.Conn) {},
			least: 2 * time.Minute, most: 2*time.Minute + time.Second,
		},
		"a part is read": {
			read:  func(app net.Conn) { _, _ = io.ReadFull(app, make([]byte, 100_000)) },
			least: 2 * time.Minute, most: 4*time.Minute + time.Second,
		},
		"all is read, slowly": {
			read: func(app net.Conn) {
				for buf := make([]byte, 1000); ; time.Sleep(time.Second) {
					if _, err := app.Read(buf); err != nil {
						return
					}
				}
			},
			least: size / 1000 * time.Second, most: size/1000*time.Second + 15*time.Second, ended: true,
		},
		"all is read, and nothing closed": {
			read:  func(app net.Conn) { _, _ = io.Copy(io.Discard, app) },
			least: 10 * time.Second, most: 11 * time.Second, ended: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, app := net.Pipe()
				defer app.Close()
				backend := &backendPipe{Conn: near}
				m := newPipeMesh(t, func(s *hbone.Server) {
					s.Admit = nil
					s.Connect = func(context.Context, *hbone.ConnectRequest) (net.Conn, error) { return backend, nil }
				})
				c := m.open(t)
				if _, err := c.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				c.Close()
				synctest.Wait()
				began := time.Now()
				go tt.read(app)
				for !backend.reset.Load() && time.Since(began) <= tt.most {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(began); took < tt.least || took > tt.most {
					t.Errorf("it was given up after %v, want %v to %v", took, tt.least, tt.most)
				}
				if backend.ended.Load() != tt.ended {
					t.Errorf("its end was passed on: %v", !tt.ended)
				}
			})
		})
	}
}
