package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

const (
	// forwardProtocol is what kubectl port-forward speaks, whatever the API server wraps it in.
	forwardProtocol = "portforward.k8s.io"
	// forwardIdle is how long a session may be without a connection.
	forwardIdle = 10 * time.Minute
	// forwardDial is how long a connection to a port may take.
	forwardDial = 10 * time.Second
	// forwardMost is how many connections a session may have at once.
	forwardMost = 64
)

// portForward joins connections of kubectl port-forward to ports of a pod's loopback address, as a kubelet does.
func (k *kubelet) portForward(w http.ResponseWriter, r *http.Request) {
	if k.player.cfg.KubeletClient == nil {
		http.Error(w, "this node does not know its API server: Config.KubeletClient names its certificate", http.StatusForbidden)
		return
	}
	p := k.player.find(r.PathValue("namespace"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, "no such pod runs here", http.StatusNotFound)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{forwardProtocol}); err != nil {
		return // it has answered
	}
	s := &forwarding{pod: p, streams: make(chan httpstream.Stream), done: make(chan struct{})}
	s.conn = spdy.NewResponseUpgrader().UpgradeResponse(w, r, s.take)
	if s.conn == nil {
		return // it has answered
	}
	stop := context.AfterFunc(k.player.ctx, func() { s.conn.Close() })
	defer stop()
	s.run(k.player.ctx)
}

// forwarding is a session of kubectl port-forward: each connection is a pair of streams with the same request id.
type forwarding struct {
	pod     *pod
	conn    httpstream.Connection
	streams chan httpstream.Stream
	done    chan struct{} // closed when run takes no more streams
	wg      sync.WaitGroup
}

// take is called for each stream that the other side opens, and may block it.
func (s *forwarding) take(stream httpstream.Stream, _ <-chan struct{}) error {
	switch stream.Headers().Get(corev1.StreamType) {
	case corev1.StreamTypeData, corev1.StreamTypeError:
	default:
		return errors.New("a stream is neither for data nor for errors")
	}
	if n, err := strconv.ParseUint(stream.Headers().Get(corev1.PortHeader), 10, 16); err != nil || n == 0 {
		return errors.New("a stream names no port")
	}
	select {
	case s.streams <- stream:
		return nil
	case <-s.done:
		return net.ErrClosed
	}
}

// run pairs streams until the session ends, and waits for their connections.
func (s *forwarding) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	defer s.conn.Close()
	defer close(s.done)
	half := map[string]httpstream.Stream{}
	slots := make(chan struct{}, forwardMost)
	idle := time.NewTimer(forwardIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.conn.CloseChan():
			return
		case <-idle.C:
			if len(slots) == 0 {
				return
			}
		case stream := <-s.streams:
			id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			other, both := half[id]
			if !both {
				if len(half) >= forwardMost {
					return // it opens halves only
				}
				half[id] = stream
				break
			}
			delete(half, id)
			select {
			case slots <- struct{}{}:
			default:
				return // it wants too much
			}
			data, errs := stream, other
			if data.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				data, errs = errs, data
			}
			s.wg.Go(func() {
				s.join(ctx, data, errs)
				<-slots
			})
		}
		idle.Reset(forwardIdle)
	}
}

// join carries one connection until either side ends it. What goes wrong is told by the stream of errors.
func (s *forwarding) join(ctx context.Context, data, errs httpstream.Stream) {
	defer s.conn.RemoveStreams(data, errs)
	defer errs.Close()
	defer func() { _ = data.Reset() }()
	port := data.Headers().Get(corev1.PortHeader)
	dialling, cancel := context.WithTimeout(ctx, forwardDial)
	to, err := s.pod.ns().DialContext(dialling, "tcp4", net.JoinHostPort("127.0.0.1", port))
	cancel()
	if err != nil {
		fmt.Fprintf(errs, "nothing answers on port %s of the pod: %v", port, err)
		return
	}
	stop := context.AfterFunc(ctx, func() { to.Close() })
	defer stop()
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(to, data) // who asks has ended, or nobody listens any more: the other direction tells
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(data, to)
	data.Close()
	to.Close()
	_ = data.Reset()
	<-up
}
