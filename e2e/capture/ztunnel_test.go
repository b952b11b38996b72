package capture_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// fakeZtunnel stands for a ztunnel: it says its environment, is ready when asked the second time, and ends with SIGTERM. With the argument "die"
// it ends at once.
func fakeZtunnel(args []string) int {
	fmt.Println("arguments:", args)
	if os.Getenv("FAKE_ZTUNNEL") == "die" {
		fmt.Println("no identity for me")
		return 3
	}
	for _, kv := range os.Environ() {
		fmt.Println("env:", kv)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	asked := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 2 {
			fmt.Println("not ready")
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Println("ready")
	})
	l, err := net.Listen("tcp4", "127.0.0.1:15021")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go http.Serve(l, mux)
	<-stop.Done()
	fmt.Println("asked to end")
	return 0
}

// ztunnelProcess is the capture process of a pod with a ztunnel at path. What it says comes as text, all of it when it has ended.
func ztunnelProcess(t *testing.T, path string) (cmd *exec.Cmd, ready *bufio.Reader, said *strings.Builder) {
	t.Helper()
	t.Setenv("ISTHMUS_ZTUNNEL", path)
	dir := t.TempDir()
	p, err := capture.Hook(capture.Mesh{Roots: func() []byte { return []byte("roots") }})(t.Context(), node.CapturePod{
		Namespace: "shop", Name: "orders-1", ServiceAccount: "orders", Node: "n1", IP: netip.MustParseAddr("10.244.1.7"), TokenFile: "/token", Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	said = &strings.Builder{}
	p.Cmd.ExtraFiles, p.Cmd.Stdout, p.Cmd.Stderr = []*os.File{w}, said, said
	p.Cmd.WaitDelay = 5 * time.Second
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return p.Cmd, bufio.NewReader(r), said
}

// fakePath is a program that runs the fake.
func fakePath(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "ztunnel")
	script := fmt.Sprintf("#!/bin/sh\n%s=fake-ztunnel exec /proc/%d/exe \"$@\"\n", world.FuncEnv, os.Getpid())
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestZtunnelIsStartedInItsPlace(t *testing.T) {
	cmd, ready, said := ztunnelProcess(t, fakePath(t))
	if line, err := ready.ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("ready: got %q, %v; it said %s", line, err, said)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code is the signal's business
	for _, want := range []string{
		"arguments: [proxy ztunnel]", "not ready\nready\n", "asked to end",
		"env: PROXY_MODE=dedicated\n", "env: PROXY_WORKLOAD_INFO=shop/orders-1/orders\n", "env: AUTH_TOKEN=/token\n",
		"env: CA_ADDRESS=https://10.244.0.1:15012\n", "env: XDS_ADDRESS=https://10.244.0.1:15012\n",
		"env: ALT_CA_HOSTNAME=istiod.istio-system.svc\n", "env: CLUSTER_ID=Kubernetes\n", "env: NODE_NAME=n1\n", "env: POD_NAME=orders-1\n",
		"env: POD_NAMESPACE=shop\n", "env: SERVICE_ACCOUNT=orders\n", "env: INSTANCE_IP=10.244.1.7\n",
		"env: PACKET_MARK=1337\n", "env: LOG_FORMAT=json\n", // 1337 is what the node's rules leave alone
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it did not say %q, but\n%s", want, said)
		}
	}
}

func TestZtunnelThatDoesNotWork(t *testing.T) {
	t.Run("it ends", func(t *testing.T) {
		t.Setenv("FAKE_ZTUNNEL", "die")
		cmd, ready, said := ztunnelProcess(t, fakePath(t))
		err := cmd.Wait()
		for _, want := range []string{"no identity for me", "ztunnel ended before it was ready: exit status 3"} {
			if err == nil || !strings.Contains(said.String(), want) {
				t.Errorf("%v; it did not say %q, but %s", err, want, said)
			}
		}
		if rest, err := io.ReadAll(ready); err != nil || len(rest) > 0 {
			t.Errorf("ready: %q, %v", rest, err)
		}
	})
	t.Run("its path is relative", func(t *testing.T) {
		t.Setenv("ISTHMUS_ZTUNNEL", "bin/ztunnel")
		hook := capture.Hook(capture.Mesh{Roots: func() []byte { return nil }})
		if _, err := hook(t.Context(), node.CapturePod{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), `"bin/ztunnel": give an absolute path`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it is not there", func(t *testing.T) {
		cmd, _, said := ztunnelProcess(t, "/nowhere/ztunnel")
		err := cmd.Wait()
		if want := "start ISTHMUS_ZTUNNEL: fork/exec /nowhere/ztunnel: no such file"; err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%v; it did not say %q, but %s", err, want, said)
		}
	})
}

func TestEntriesOfZtunnel(t *testing.T) {
	const (
		open = `{"level":"debug","time":"2026-08-10T08:19:58.1Z","scope":"access","message":"connection opened","src.addr":"10.244.0.6:57866",` +
			`"src.identity":"spiffe://cluster.local/ns/edge/sa/gateway","dst.addr":"10.244.0.7:15008","dst.hbone_addr":"10.244.0.7:8080",` +
			`"dst.workload":"orders","dst.namespace":"shop","dst.identity":"spiffe://cluster.local/ns/shop/sa/orders","direction":"inbound"}`
		complete = `{"level":"info","time":"2026-08-10T08:19:59.2Z","scope":"access","message":"connection complete","src.addr":"10.244.0.6:57866",` +
			`"src.identity":"spiffe://cluster.local/ns/edge/sa/gateway","dst.addr":"10.244.0.7:15008","dst.hbone_addr":"10.244.0.7:8080",` +
			`"dst.workload":"orders","dst.namespace":"shop","dst.identity":"spiffe://cluster.local/ns/shop/sa/orders","direction":"inbound",` +
			`"bytes_sent":10,"bytes_recv":20,"duration":"1ms"`
	)
	denied := strings.Replace(complete, `"bytes_sent":10,"bytes_recv":20`, `"bytes_sent":0,"bytes_recv":0`, 1) +
		`,"error":"connection closed due to policy rejection: explicitly denied by: shop/deny-bad"}`
	began, ended := time.Date(2026, 8, 10, 8, 19, 58, 1e8, time.UTC), time.Date(2026, 8, 10, 8, 19, 59, 2e8, time.UTC)
	inbound := capture.Entry{
		Time: began, Direction: capture.Inbound, Transport: capture.HBONE, Source: "10.244.0.6:57866", SourceIdentity: "spiffe://cluster.local/ns/edge/sa/gateway",
		Destination: "10.244.0.7:8080", Authority: "10.244.0.7:8080",
	}
	change := func(e capture.Entry, f func(*capture.Entry)) capture.Entry { f(&e); return e }
	yes, no := true, false
	allowed := change(inbound, func(e *capture.Entry) { e.Allowed, e.Status = &yes, 200 })
	for name, tt := range map[string]struct {
		log  string
		want []capture.Entry
	}{
		"other lines are skipped": {"2026 info\n{\"level\":\"info\",\"scope\":\"ztunnel\",\"message\":\"x\",\"direction\":\"inbound\"}\n{", nil},
		"open, and not decided":   {open, []capture.Entry{inbound}},
		"open and complete":       {open + "\n" + complete + "}", []capture.Entry{allowed}},
		"two at once":             {open + "\n" + open + "\n" + complete + "}", []capture.Entry{allowed, inbound}},
		"complete only":           {complete + "}", []capture.Entry{change(allowed, func(e *capture.Entry) { e.Time = ended })}},
		"denied": {open + "\n" + denied, []capture.Entry{change(inbound, func(e *capture.Entry) {
			e.Allowed, e.Status, e.Policy = &no, 401, "shop/deny-bad"
			e.Reason = []string{"connection closed due to policy rejection: explicitly denied by: shop/deny-bad"}
		})}},
		"denied while open": {open + "\n" + complete + `,"error":"connection closed due to policy change"}`,
			[]capture.Entry{change(inbound, func(e *capture.Entry) {
				e.Allowed, e.Status, e.Ended = &no, 401, true
				e.Reason = []string{"connection closed due to policy change"}
			})}},
		"nobody listens": {open + "\n" + complete + `,"error":"connection failed: refused"}`,
			[]capture.Entry{change(inbound, func(e *capture.Entry) { e.Error = "connection failed: refused" })}},
		"outbound": {strings.Replace(complete, `"inbound"`, `"outbound"`, 1) + `,"error":"http status: 401 Unauthorized"}`,
			[]capture.Entry{change(inbound, func(e *capture.Entry) {
				e.Time, e.Direction, e.Status, e.Error = ended, capture.Outbound, 401, "http status: 401 Unauthorized"
				e.Hop, e.HopName, e.HopAddr, e.PeerIdentity = "workload", "shop/orders", "10.244.0.7:15008", "spiffe://cluster.local/ns/shop/sa/orders"
			})}},
		"plaintext turned away early": {`{"level":"warn","time":"2026-08-10T08:19:59.2Z","scope":"access","message":"connection failed","src.addr":"10.244.0.6:1",` +
			`"dst.addr":"10.244.0.7:8080","direction":"inbound","error":"connection closed due to policy rejection: explicitly denied by: istio-system/istio_converted_static_strict"}`,
			[]capture.Entry{{Time: ended, Direction: capture.Inbound, Transport: capture.Plaintext, Source: "10.244.0.6:1", Destination: "10.244.0.7:8080",
				Allowed: &no, Policy: "istio-system/istio_converted_static_strict",
				Reason: []string{"connection closed due to policy rejection: explicitly denied by: istio-system/istio_converted_static_strict"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, capture.Entries(tt.log)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
