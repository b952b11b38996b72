package world

import (
	"context"
	"net"
	"sync"
)

// Publish lets the host reach something in the world: it listens on a port of the host's 127.0.0.1 that the kernel
// chooses, and joins every connection with one that dial makes (half-close is kept). dial gets ctx, and a
// connection that it cannot make closes the caller's. The result is the host's address; all ends with ctx.
func Publish(ctx context.Context, dial func(context.Context) (net.Conn, error)) (string, error) {
	l, err := HostListen("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go relay(ctx, l, dial)
	return l.Addr().String(), nil
}

// relay accepts until l is closed.
func relay(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		a, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer a.Close()
			b, err := dial(ctx)
			if err != nil {
				return
			}
			defer b.Close()
			defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
			Join(a, b, nil)
		})
	}
}
