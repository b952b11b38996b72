package wds

import (
	"fmt"
	"strings"
	"time"
)

const (
	// mountGrace is how long a file may be missing before those who wait are told: a kubelet may mount it a moment after the container has begun.
	mountGrace = 2 * time.Second
	// longestLook is the most between two looks for a file that is missing.
	longestLook = 2 * time.Second

	maxTokenFile = 1 << 20 // bytes; a token has a few thousand
	maxRootsFile = 4 << 20 // bytes; hundreds of roots fit in
)

// fileError is a file without which istiod cannot be asked.
type fileError struct{ err error }

func (e *fileError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *fileError) Unwrap() error { return e.err }

// readToken reads TokenFile.
func (c *Config) readToken() (string, error) {
	const remedy = "in a pod: project a serviceAccountToken with audience istio-ca; elsewhere: kubectl create token ACCOUNT -n NAMESPACE --audience istio-ca"
	b, err := readRegular(c.TokenFile, maxTokenFile)
	if err != nil {
		return "", &fileError{fmt.Errorf("read token: %w (%s)", err, remedy)}
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", &fileError{fmt.Errorf("read token: %s is empty (%s)", c.TokenFile, remedy)}
	}
	return token, nil
}

// readRoots reads RootsFile.
func (c *Config) readRoots() ([]byte, error) {
	b, err := readRegular(c.RootsFile, maxRootsFile)
	if err != nil {
		err = &fileError{fmt.Errorf("read roots: %w (ConfigMap istio-ca-root-cert has them, in every namespace)", err)}
	}
	return b, err
}

// failed notes why a stream ended. stuck says that it is not worth waiting for the next: who waits is told, and so is who asks for what is not known, until
// there is one.
func (c *Client) failed(err error, stuck bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
	c.stats.Lost++
	c.stats.LastError = err
	switch {
	case !stuck:
		c.unstuck()
	case c.now.Load().stuck == nil: // once is enough
		c.publish(func(v *view) { v.stuck = err })
	}
}

// unstuck notes that all that istiod wants to see is there; mu is held.
func (c *Client) unstuck() {
	if c.now.Load().stuck != nil {
		c.publish(func(v *view) { v.stuck = nil })
	}
}
