package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// eager is the interval of a probe that has never passed: a pod that is up shall be seen as up at once. Failures count
// once a period all the same.
const eager = 200 * time.Millisecond

// probe watches one process of the container: first the startup probe, then readiness and liveness. It returns when ctx ends
// or the container is to be restarted.
func (c *container) probe(ctx context.Context, pid int) {
	if p := c.spec.StartupProbe; p != nil {
		if !c.passes(ctx, p, pid) {
			c.fail(ctx, "startup")
			return
		}
		c.set(func() {
			c.started = true
			c.ready = c.spec.ReadinessProbe == nil
		})
	}
	done := make(chan struct{})
	if p := c.spec.ReadinessProbe; p != nil {
		go func() {
			defer close(done)
			c.watch(ctx, p, pid, func(ok bool) bool {
				c.set(func() { c.ready = ok })
				return true
			})
		}()
	} else {
		close(done)
	}
	if p := c.spec.LivenessProbe; p != nil {
		dead := false
		c.watch(ctx, p, pid, func(ok bool) bool {
			dead = !ok
			return ok
		})
		if dead {
			c.fail(ctx, "liveness")
		}
	}
	<-done
}

// fail restarts the container.
func (c *container) fail(ctx context.Context, what string) {
	if ctx.Err() != nil {
		return
	}
	c.pod.player.log.Info("probe failed, restarting", "pod", c.pod.key, "container", c.spec.Name, "probe", what)
	c.restart(ctx, c.pod.grace())
}

// passes waits for a startup probe and reports false when it has failed for good.
func (c *container) passes(ctx context.Context, p *corev1.Probe, pid int) bool {
	ok := false
	c.watch(ctx, p, pid, func(got bool) bool {
		ok = got
		return false
	})
	return ok || ctx.Err() != nil
}

// watch runs a probe for as long as ctx lasts and tells changed each time that its outcome passes the threshold to
// another one; the first failure past the threshold counts as a change. changed ends it by returning false.
func (c *container) watch(ctx context.Context, p *corev1.Probe, pid int, changed func(ok bool) bool) {
	period := seconds(p.PeriodSeconds, 10)
	if !pause(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) {
		return
	}
	var good, bad int32
	passed, told := false, false
	counted := time.Time{} // when a failure last counted
	for {
		err := c.check(ctx, p, pid)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		if err == nil {
			good, bad = good+1, 0
			if good >= max(p.SuccessThreshold, 1) && (!told || !passed) {
				told, passed = true, true
				if !changed(true) {
					return
				}
			}
		} else if good = 0; now.Sub(counted) >= period-eager/2 || passed {
			counted = now
			if bad++; bad >= cmp.Or(p.FailureThreshold, 3) && (!told || passed) {
				told, passed = true, false
				if !changed(false) {
					return
				}
			}
		}
		wait := period
		if !passed {
			wait = min(period, eager)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// check runs a probe once.
func (c *container) check(ctx context.Context, p *corev1.Probe, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	return c.act(ctx, p.HTTPGet, p.TCPSocket, p.Exec, pid)
}

// act does what a probe or a hook says.
func (c *container) act(ctx context.Context, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction, run *corev1.ExecAction, pid int) error {
	switch {
	case get != nil:
		return c.httpGet(ctx, get)
	case tcp != nil:
		addr, err := c.address(tcp.Host, tcp.Port)
		if err != nil {
			return err
		}
		conn, err := c.pod.player.probeDial(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	case run != nil:
		_, err := c.pod.exec(ctx, c.spec, pid, run.Command)
		return err
	}
	return errors.New("the node plays httpGet, tcpSocket and exec")
}

func (c *container) httpGet(ctx context.Context, get *corev1.HTTPGetAction) error {
	addr, err := c.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/"+strings.TrimPrefix(get.Path, "/"), nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	req.Header.Set("User-Agent", "kube-probe/1.36")
	for _, h := range get.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	tr := &http.Transport{
		DialContext:       c.pod.player.probeDial,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a kubelet does not verify either
	}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("probe %s: status %d", req.URL, res.StatusCode)
	}
	return nil
}

// address is where a probe goes: the pod, unless it names a host.
func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	n := port.IntVal
	if port.Type == intstr.String {
		n = 0
		for _, p := range c.spec.Ports {
			if p.Name == port.StrVal {
				n = p.ContainerPort
			}
		}
		if v, err := strconv.Atoi(port.StrVal); err == nil {
			n = int32(v)
		}
		if n == 0 {
			return "", fmt.Errorf("container %s has no port %q", c.spec.Name, port.StrVal)
		}
	}
	return net.JoinHostPort(cmp.Or(host, c.pod.addr().String()), strconv.Itoa(int(n))), nil
}

// probeDial connects from the node with the address that capture leaves alone.
func (p *Player) probeDial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IP(probeAddr.AsSlice())}}
	err = p.cfg.NS.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// preStop runs the container's hook, at most for grace. Its failure changes nothing.
func (c *container) preStop(ctx context.Context, grace time.Duration) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return
	}
	c.mu.Lock()
	proc := c.proc
	c.mu.Unlock()
	if proc == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	hook := c.spec.Lifecycle.PreStop
	if hook.Sleep != nil {
		pause(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
		return
	}
	if err := c.act(ctx, hook.HTTPGet, hook.TCPSocket, hook.Exec, proc.Pid); err != nil {
		c.pod.player.log.Info("preStop hook failed", "pod", c.pod.key, "container", c.spec.Name, "err", err)
	}
}

func seconds(n, def int32) time.Duration { return time.Duration(cmp.Or(n, def)) * time.Second }

// pause waits for d and reports whether ctx still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
