package node

import (
	"testing"
)

func TestPodRunsAFunctionWithItsOwnNetwork(t *testing.T) {
	ns := namespace(t, nil)
	p := run(t, webPod(ns, "a"))
	wantGet(t, podIP(p), "a from 169.254.7.127", "/")
	wantGet(t, podIP(p), "FROM_IMAGE=yes", "/env")
}
