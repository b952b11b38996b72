package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os/exec"
	"strconv"
	"time"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// Config says which cluster the player plays the node for, and with what.
type Config struct {
	// REST reaches the API server; its Dial may go through a namespace. Required.
	REST *rest.Config
	// KubeletClient is the certificate, as PEM, that the API server shows to kubelets (--kubelet-client-certificate): the node answers nobody else. Nil: whoever
	// is in the mesh's namespaces gets logs of pods, and nobody connections to their ports.
	KubeletClient []byte
	// NS is the mesh's network namespace: the node's own. Required; the caller closes it after the player.
	NS *world.NS
	// Dir takes logs and the pods' volumes. Required. Logs stay after Close.
	Dir string
	// Images maps the image names that pods may use to what they run. An image that is not here does not start.
	Images map[string]Image
	// Program makes the image of a name that is an absolute path: a program of this machine. Nil: there are no such images.
	Program func(path string) (Image, error)
	// Capture makes the capture process of a pod that the mesh enrols. Nil: no pod is ever captured.
	Capture CaptureHook
	// Hosts are further lines of every pod's /etc/hosts.
	Hosts map[string]netip.Addr
	// PodCIDR is the network of the pods; its first address is the node's own. Zero means 10.244.0.0/16.
	// Pods get addresses from 256 above the network's address.
	PodCIDR netip.Prefix
	// ServiceCIDR is the network of Services; address 1 is the API server, 10 the DNS server. Zero means 10.96.0.0/16.
	ServiceCIDR netip.Prefix
	// Rules chooses how Services and capture are made. The zero value, Auto, takes what the kernel allows.
	Rules Rules
	// Direct are destinations that captured pods reach without capture. Nil means the API server and
	// the ports 15010 and 15012 of the node's address.
	Direct []netip.AddrPort
	// Name is the name of the Node object. Empty means n1.
	Name string
	// RotateTokens is the age at which a projected token is replaced. Zero or negative means 80 % of its lifetime.
	RotateTokens time.Duration
	// BackOff is the delay before a container's second restart; it doubles up to ten times its value.
	// Zero means 1 s; negative restarts at once.
	BackOff time.Duration
	// Logger takes what happens to pods. Nil is silent.
	Logger *slog.Logger
}

// Image is what a container image stands for.
type Image struct {
	// Entrypoint is the program and its first arguments, as paths in the root file system. A container's command replaces it.
	Entrypoint []string
	// Func names a function of world.Enter that is the program when neither Entrypoint nor command is there.
	Func string
	// Files maps absolute paths in the root file system to files or folders of the host, shown read-only.
	Files map[string]string
	// Env are KEY=value defaults.
	Env []string
}

// CapturePod describes a pod to a CaptureHook.
type CapturePod struct {
	Namespace, Name, UID, ServiceAccount, Node string
	IP                                         netip.Addr
	// TokenFile holds a token of the pod's service account for audience istio-ca, bound to the pod;
	// the player keeps it fresh. Mode 0600.
	TokenFile string
	// Dir is a folder for the hook's own files; it is removed with the pod.
	Dir string
	// ServicePorts is empty when connections are redirected by nftables: to 15001 what goes out, to 15006 what comes in. Else (AnyIP) it is
	// the path of a file with a line ip:port for each TCP port of each Service, replaced when Services change. The process listens
	// on these with IP_TRANSPARENT, and the address that a connection came to is its original destination; nothing else is redirected.
	ServicePorts string
	// BypassInbound: the pod's inbound connections are not redirected, only port 15008 is served.
	BypassInbound bool
}

// CaptureProcess is a process that carries a pod's connections.
type CaptureProcess struct {
	// Cmd is started in the pod's network namespace, not in its root file system. Standard output and error
	// go to the pod's log of the container name "capture" unless set.
	Cmd *exec.Cmd
	// Ready blocks until the process serves. Nil: the process writes a line to file descriptor 3 when it does, and
	// Cmd.ExtraFiles is the player's.
	Ready func(ctx context.Context) error
}

// CaptureHook makes the process that captures p. It is called again when the process has ended before its time. The process is asked to end by SIGTERM when its pod leaves the
// mesh, where others may not know that yet, and by SIGINT when the pod has ended; it has some seconds to do so.
type CaptureHook func(ctx context.Context, p CapturePod) (CaptureProcess, error)

func (c *Config) podCIDR() netip.Prefix {
	if c.PodCIDR.IsValid() {
		return c.PodCIDR.Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 0, 0}), 16)
}

func (c *Config) serviceCIDR() netip.Prefix {
	if c.ServiceCIDR.IsValid() {
		return c.ServiceCIDR.Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, 0, 0}), 16)
}

func (c *Config) name() string { return cmp.Or(c.Name, "n1") }

// gateway is the node's own address.
func (c *Config) gateway() netip.Addr { return c.podCIDR().Addr().Next() }

func (c *Config) apiVIP() netip.Addr { return c.serviceCIDR().Addr().Next() }

func (c *Config) dnsVIP() netip.Addr { return addrPlus(c.serviceCIDR().Addr(), 10) }

func (c *Config) backOff() time.Duration { return max(0, cmp.Or(c.BackOff, time.Second)) }

func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// api is the API server's address as REST has it.
func (c *Config) api() (netip.AddrPort, error) {
	u, err := url.Parse(c.REST.Host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse API server address: %w", err)
	}
	host, port := u.Hostname(), u.Port()
	if u.Host == "" { // host:port without a scheme
		if host, port, err = net.SplitHostPort(c.REST.Host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("parse API server address: %w", err)
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse API server address: %w", err)
	}
	n, err := strconv.ParseUint(cmp.Or(port, "443"), 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse API server address: %w", err)
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}

// direct lists what captured pods reach without capture.
func (c *Config) direct(api netip.AddrPort) []netip.AddrPort {
	if c.Direct != nil {
		return c.Direct
	}
	return []netip.AddrPort{api, netip.AddrPortFrom(c.gateway(), 15010), netip.AddrPortFrom(c.gateway(), 15012)}
}

func (c *Config) validate() error {
	switch {
	case c.REST == nil:
		return errors.New("no REST config: set Config.REST")
	case c.NS == nil:
		return errors.New("no network namespace: set Config.NS")
	case c.KubeletClient != nil && !bytes.Contains(c.KubeletClient, []byte("-----BEGIN CERTIFICATE-----")):
		return errors.New("the API server's certificate is no PEM: correct Config.KubeletClient")
	case c.Dir == "":
		return errors.New("no folder: set Config.Dir")
	case !c.podCIDR().Addr().Is4() || c.podCIDR().Bits() > 22:
		return fmt.Errorf("pod network %v: need an IPv4 prefix of at most 22 bits", c.podCIDR())
	case !c.serviceCIDR().Addr().Is4() || c.serviceCIDR().Bits() > 27:
		return fmt.Errorf("service network %v: need an IPv4 prefix of at most 27 bits", c.serviceCIDR())
	}
	return nil
}

// addrPlus is the IPv4 address n above a.
func addrPlus(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}
