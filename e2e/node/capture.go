package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// captureLog is the container name under which a capture process logs.
	captureLog = "capture"
	// captureAudience is the audience of the token that Istio's CA takes.
	captureAudience = "istio-ca"
	// captureStart bounds a capture process's start, captureStop its end after it was asked to.
	captureStart = 30 * time.Second
	captureStop  = 9 * time.Second
)

// captor keeps a pod captured or not, as it is told: process, rules, annotation, and back. run owns what stands outside
// mu.
type captor struct {
	pod   *pod
	dir   string
	once  sync.Once
	woken chan struct{} // capacity 1
	proc  *captureProc  // nil while there is none
	begun bool          // enable has begun, and disable has not ended
	toks  tokens

	mu     sync.Mutex // guards the fields below
	wanted enrolment
	have   enrolment
	known  bool  // want has been called
	err    error // why have is not wanted
	live   *os.Process
}

func newCaptor(w *pod) *captor {
	return &captor{
		pod: w, dir: filepath.Join(w.dir, "capture"), woken: make(chan struct{}, 1),
		toks: tokens{client: w.player.client, rotate: w.player.cfg.RotateTokens},
	}
}

// start runs the captor until ctx ends. Later calls do nothing.
func (c *captor) start(ctx context.Context, wg *sync.WaitGroup) {
	c.once.Do(func() { wg.Go(func() { c.run(ctx) }) })
}

// want says what the pod should have of the mesh.
func (c *captor) want(e enrolment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && c.wanted == e {
		return
	}
	c.wanted, c.known = e, true
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// settled is nil when the pod has what it should have.
func (c *captor) settled() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.have == c.wanted:
		return nil
	case c.err != nil:
		return fmt.Errorf("capture: %w", c.err)
	}
	return errors.New("capture: under way")
}

// run keeps the pod as it is wanted until ctx ends; then the process may finish what it carries, unless the player ends.
func (c *captor) run(ctx context.Context) {
	defer func() { c.end(c.pod.player.ctx, unix.SIGINT) }()
	for ctx.Err() == nil {
		c.mu.Lock()
		want, have := c.wanted, c.have
		c.mu.Unlock()
		var err error
		switch {
		case !want.on && c.begun:
			err = c.disable(ctx)
			have = want
		case want.on && want != have:
			err = c.enable(ctx, want)
			have = want
		case want.on:
			_, err = c.token(ctx)
		default:
			have = want
		}
		if err != nil && ctx.Err() == nil {
			c.pod.player.log.Info("capture waits", "pod", c.pod.key, "err", err)
		}
		c.mu.Lock()
		if err == nil {
			c.have = have
		}
		c.err = err
		c.mu.Unlock()
		c.pod.wake()
		c.pod.player.notify()
		c.rest(ctx, err != nil)
	}
}

// rest waits for a new wish, the end of the process or the time to renew the token.
func (c *captor) rest(ctx context.Context, failed bool) {
	var due <-chan time.Time
	next := c.toks.next()
	if failed {
		next = time.Now().Add(retryPod)
	}
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	var ended chan struct{}
	if c.proc != nil && !failed {
		ended = c.proc.done
	}
	select {
	case <-ctx.Done():
	case <-c.woken:
	case <-due:
	case <-ended:
		c.pod.player.log.Warn("capture process ended, starting another", "pod", c.pod.key, "err", c.proc.err)
		c.mu.Lock()
		c.have, c.err = enrolment{}, errors.New("the process has ended")
		c.mu.Unlock()
	}
}

// enable captures the pod. The rules come when the process serves, so that nothing is refused in between; from then on
// what the process does not carry does not travel.
func (c *captor) enable(ctx context.Context, e enrolment) error {
	ctx, cancel := context.WithTimeout(ctx, captureStart)
	defer cancel()
	c.begun = true
	c.kill()
	if err := c.launch(ctx, e); err != nil {
		return err
	}
	if err := c.pod.ns().Do(func() error { return c.redirect(e) }); err != nil {
		return fmt.Errorf("write capture rules: %w", err)
	}
	return c.annotate(ctx, `"enabled"`)
}

// redirect runs in the pod's namespace and leads connections to the process.
func (c *captor) redirect(e enrolment) error {
	p := c.pod.player
	if p.Rules() == AnyIP {
		return captureAnyIP(&p.cfg, c.pod.addr())
	}
	return captureRules(&p.cfg, p.api, c.pod.addr(), e.bypassInbound)
}

// disable takes everything back in the opposite order.
func (c *captor) disable(ctx context.Context) error {
	if err := c.annotate(ctx, "null"); err != nil {
		return err
	}
	// First nothing new comes to the process, then it ends what it has, then its rules go.
	redirection, rules := endRedirection, removeCaptureRules
	if c.pod.player.Rules() == AnyIP {
		redirection, rules = removeCaptureAnyIP, func() error { return nil }
	}
	if err := c.pod.ns().Do(redirection); err != nil {
		return fmt.Errorf("end redirection: %w", err)
	}
	c.end(ctx, unix.SIGTERM)
	if err := c.pod.ns().Do(rules); err != nil {
		return fmt.Errorf("remove capture rules: %w", err)
	}
	c.begun, c.toks.have = false, nil
	return nil
}

// annotate tells the mesh whether the pod speaks HBONE; value is JSON, null takes the annotation away.
func (c *captor) annotate(ctx context.Context, value string) error {
	obj, _ := c.pod.current()
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{%q:%s}}}`, c.pod.uid, annotationRedirection, value)
	_, err := c.pod.player.client.CoreV1().Pods(obj.Namespace).Patch(ctx, obj.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("annotate pod: %w", err)
	}
	return nil
}
