package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

const sigterm = syscall.SIGTERM

func tcp(port int) *corev1.TCPSocketAction {
	return &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}
}

// captureHook starts the fake with what the player says.
func captureHook(_ context.Context, p CapturePod) (CaptureProcess, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return CaptureProcess{}, err
	}
	path := filepath.Join(p.Dir, "config.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return CaptureProcess{}, err
	}
	return CaptureProcess{Cmd: world.FuncCommand("fake-capture", path)}, nil
}

// fakeCapture carries connections as they are and writes down what it is asked to carry.
func fakeCapture(args []string) int {
	raw, err := os.ReadFile(args[0])
	var p CapturePod
	if err = errors.Join(err, json.Unmarshal(raw, &p)); err != nil {
		fmt.Println(err)
		return 1
	}
	if _, err := os.ReadFile(p.TokenFile); err != nil {
		fmt.Println("token:", err)
		return 1
	}
	for name, addr := range map[string]string{"outbound": ":15001", "inbound": ":15006"} {
		l, err := net.Listen("tcp4", addr)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go carry(name, c.(*net.TCPConn))
			}
		}()
	}
	fmt.Printf("serving %s/%s as %s bypass=%v\n", p.Namespace, p.Name, p.ServiceAccount, p.BypassInbound)
	fmt.Fprintln(os.NewFile(3, "ready"), "ready")
	select {}
}

func carry(name string, c *net.TCPConn) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var to string
	raw.Control(func(fd uintptr) {
		const originalDst = 80 // SO_ORIGINAL_DST
		m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDst)
		if err == nil {
			b := m.Multiaddr
			to = fmt.Sprintf("%d.%d.%d.%d:%d", b[4], b[5], b[6], b[7], int(b[2])<<8|int(b[3]))
		}
	})
	fmt.Println(name, to)
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, captureMark)
			if name == "inbound" {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			}
		})
	}}
	if name == "inbound" {
		d.LocalAddr = &net.TCPAddr{IP: c.RemoteAddr().(*net.TCPAddr).IP} // the pod shall see its client
	}
	up, err := d.Dial("tcp4", to)
	if err != nil {
		fmt.Println(name, err)
		return
	}
	defer up.Close()
	go io.Copy(up, c)
	io.Copy(c, up)
}
