package world

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Each request to the process outside has a socket of its own: the program sends the other end of it, and up to two more
// files, over the control socket; then one JSON value goes each way on it. Closing it early cancels the request.

// hostRequest asks the process outside for a listener, when Listen is set, or to run something.
type hostRequest struct {
	Listen string   // TCP address on the host's loopback
	Func   string   // one of Funcs, with Argv as its arguments
	Argv   []string // command; its stdout and stderr are the two files sent along
	Env    []string
	Dir    string
}

// hostReply answers it. The listener travels beside it as a file.
type hostReply struct {
	Error string
	Code  int // of the command
}

// HostListen listens on the host's loopback: address is "127.0.0.1:0" or with a port. The listener belongs to the
// caller, who closes it; connections accepted from it are connections of the host's network.
func HostListen(address string) (net.Listener, error) {
	conn, err := askHost(hostRequest{Listen: address}, os.Stdout, os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("listen on the host's %s: %w", address, err)
	}
	defer conn.Close()
	reply, files, err := readReply(conn)
	if err != nil {
		return nil, fmt.Errorf("listen on the host's %s: %w", address, err)
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("listen on the host's %s: %s", address, reply.Error)
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("listen on the host's %s: no socket came back", address)
	}
	defer files[0].Close()
	return net.FileListener(files[0])
}

// HostCommand describes a command that runs outside of the world, as a child of the process outside, in the host's network and
// with the user's own rights.
type HostCommand struct {
	Func   string   // name of one of Funcs, to run it instead of a program
	Argv   []string // program and arguments, or the arguments of Func; a program is looked up in PATH
	Env    []string // nil: the environment of the process outside
	Dir    string   // empty: its working directory
	Stdout *os.File // nil: nowhere
	Stderr *os.File // nil: nowhere
}

// Run runs the command and waits for it. Cancelling ctx interrupts it, and kills it after five seconds; Run returns when it has ended. A command that ran and
// failed is an *HostExitError.
func (c HostCommand) Run(ctx context.Context) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	stdout, stderr := c.Stdout, c.Stderr
	if stdout == nil {
		stdout = null
	}
	if stderr == nil {
		stderr = null
	}
	name := c.Func
	if name == "" && len(c.Argv) > 0 {
		name = c.Argv[0]
	}
	conn, err := askHost(hostRequest{Func: c.Func, Argv: c.Argv, Env: c.Env, Dir: c.Dir}, stdout, stderr)
	if err != nil {
		return fmt.Errorf("run %s on the host: %w", name, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = conn.CloseWrite() // closed already: the reply tells
		_ = conn.SetReadDeadline(time.Now().Add(2 * endWait))
	})
	defer stop()
	reply, _, err := readReply(conn)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("run %s on the host: %w", name, err)
	case reply.Error != "":
		return fmt.Errorf("run %s on the host: %s", name, reply.Error)
	case reply.Code != 0:
		return &HostExitError{Program: name, Code: reply.Code}
	}
	return nil
}

// HostExitError says that a command ran outside and failed.
type HostExitError struct {
	Program string
	Code    int // 128+n when signal n ended it
}

func (e *HostExitError) Error() string { return fmt.Sprintf("%s: exit status %d", e.Program, e.Code) }

// Inside reports whether the calling process has entered a world, and so may use HostListen, HostCommand and Publish.
func Inside() bool {
	_, err := controlFD()
	return err == nil
}

// askHost sends a request and returns its socket.
func askHost(req hostRequest, stdout, stderr *os.File) (*net.UnixConn, error) {
	control, err := controlFD()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	rights := unix.UnixRights(pair[1], int(stdout.Fd()), int(stderr.Fd()))
	err = unix.Sendmsg(control, []byte{0}, rights, nil, 0)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("reach the process outside: %w", err)
	}
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach the process outside: %w", err)
	}
	return conn, nil
}

// unixConn owns fd.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "request")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// readReply reads one reply and the files beside it. A reply fits into one message.
func readReply(conn *net.UnixConn) (hostReply, []*os.File, error) {
	buf, oob := make([]byte, 8192), make([]byte, 128)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return hostReply{}, nil, fmt.Errorf("read reply of the process outside: %w", err)
	}
	if n == 0 {
		return hostReply{}, nil, fmt.Errorf("read reply of the process outside: %w", io.ErrUnexpectedEOF)
	}
	files, err := rightsOf(oob[:oobn])
	if err != nil {
		return hostReply{}, nil, err
	}
	var reply hostReply
	if err := json.Unmarshal(buf[:n], &reply); err != nil {
		return hostReply{}, nil, fmt.Errorf("read reply of the process outside: %w", err)
	}
	return reply, files, nil
}

// rightsOf are the files in a control message. They are closed on exec.
func rightsOf(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
