package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"
)

const (
	// kubeletPort is where the API server asks for logs.
	kubeletPort = 10250
	// followEvery is how often a log that somebody follows is looked at.
	followEvery = 100 * time.Millisecond
)

// kubelet answers what the API server asks a kubelet: the logs of containers, and connections to ports of pods. It says so where it is asked for more.
type kubelet struct {
	player *Player
	server *http.Server
	done   chan struct{}
}

// serveKubelet listens on the node's address. The API server does not verify who answers unless told to. Only the mesh's own namespaces reach the port, and
// there only who shows the API server's certificate, where Config.KubeletClient says which that is.
func serveKubelet(p *Player) (*kubelet, error) {
	cert, err := selfSigned(p.cfg.gateway())
	if err != nil {
		return nil, fmt.Errorf("serve kubelet: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	if p.cfg.KubeletClient != nil {
		config.ClientAuth, config.VerifyConnection = tls.RequireAnyClientCert, p.cfg.onlyAPIServer
	}
	l, err := p.cfg.NS.Listen("tcp4", netip.AddrPortFrom(p.cfg.gateway(), kubeletPort).String())
	if err != nil {
		return nil, fmt.Errorf("serve kubelet: %w", err)
	}
	k := &kubelet{player: p, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.logs)
	mux.HandleFunc("/portForward/{namespace}/{pod}", k.portForward)
	for _, path := range []string{"/exec/", "/attach/"} {
		mux.HandleFunc(path, noSession)
	}
	k.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
	go func() {
		defer close(k.done)
		err := k.server.Serve(tls.NewListener(l, config))
		if !errors.Is(err, http.ErrServerClosed) {
			p.log.Warn("kubelet ended", "err", err)
		}
	}()
	return k, nil
}

func (k *kubelet) close() error {
	err := k.server.Close()
	<-k.done
	return err
}

// logs sends a container's log, and what comes to it until the pod ends if that is asked for.
func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(k.player.logPath(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")))
	if err != nil {
		http.Error(w, "no such container has run here", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if n, err := strconv.Atoi(r.FormValue("tailLines")); err == nil {
		fmt.Fprintln(w, lastLines(f.Name(), n))
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return
		}
	}
	out := http.NewResponseController(w)
	for {
		living := k.player.find(r.PathValue("namespace"), r.PathValue("pod")) != nil
		if _, err := io.Copy(w, f); err != nil || r.FormValue("follow") != "true" || !living {
			return // or who asked has gone
		}
		if err := out.Flush(); err != nil || !pause(r.Context(), followEvery) {
			return
		}
	}
}

// onlyAPIServer refuses a connection of anybody else: others have certificates of the same authority.
func (c *Config) onlyAPIServer(state tls.ConnectionState) error {
	block, _ := pem.Decode(c.KubeletClient)
	if block == nil || len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, block.Bytes) {
		return errors.New("this is not the API server's certificate")
	}
	return nil
}

// noSession answers kubectl exec, attach, cp and debug; kubectl shows the text.
func noSession(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the node of this world runs nothing in pods for kubectl: where make demo-up runs it, take demo exec NAMESPACE/NAME COMMAND; a Go test takes Player.Exec",
		http.StatusNotImplemented)
}

// selfSigned is a certificate for addr that nobody trusts.
func selfSigned(addr netip.Addr) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{addr.AsSlice()},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
