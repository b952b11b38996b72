package world

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serveHost answers requests in the process outside, until the program inside is gone.
func serveHost(control *os.File) {
	defer control.Close()
	fd := int(control.Fd())
	for {
		buf, oob := make([]byte, 1), make([]byte, 128)
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		files, err := rightsOf(oob[:oobn])
		if err != nil || len(files) != 3 {
			continue
		}
		go serveOne(files)
	}
}

// serveOne answers one request.
func serveOne(files []*os.File) {
	for _, f := range files[1:] {
		defer f.Close()
	}
	defer files[0].Close()
	c, err := net.FileConn(files[0])
	if err != nil {
		return
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return
	}
	defer conn.Close()
	var req hostRequest
	if err := json.NewDecoder(conn).Decode(&req); err != nil {
		return
	}
	if req.Listen != "" {
		answerListen(conn, req.Listen)
		return
	}
	code, err := runHost(conn, req, files[1], files[2])
	answer(conn, hostReply{Code: code, Error: text(err)}, nil)
}

// answerListen makes the listener and hands it over.
func answerListen(conn *net.UnixConn, address string) {
	if host, _, err := net.SplitHostPort(address); err != nil || !net.ParseIP(host).IsLoopback() {
		answer(conn, hostReply{Error: "only loopback addresses"}, nil)
		return
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		answer(conn, hostReply{Error: busy(err)}, nil)
		return
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		answer(conn, hostReply{Error: err.Error()}, nil)
		return
	}
	defer f.Close()
	answer(conn, hostReply{}, unix.UnixRights(int(f.Fd())))
}

// busy adds the remedy to the usual reason.
func busy(err error) string {
	if errors.Is(err, unix.EADDRINUSE) {
		return err.Error() + ": another program has that port; stop it, or let the kernel choose with port 0"
	}
	return err.Error()
}

func answer(conn *net.UnixConn, r hostReply, oob []byte) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	_, _, _ = conn.WriteMsgUnix(b, oob, nil) // the asker may have gone
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// endWait is how long a command may take to end when it is interrupted.
const endWait = 5 * time.Second

// Interruptible has the end of cmd's context interrupt it and all of its process group, which it gets of its own, and kill them after five seconds: go clears
// what it has begun on that signal only. It is called before cmd is started; the returned function ends those of the group that are left, when the context
// has ended, and is called after Wait.
func Interruptible(ctx context.Context, cmd *exec.Cmd) (sweep func()) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGINT) }
	cmd.WaitDelay = endWait
	return func() {
		if ctx.Err() != nil && cmd.Process != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // nobody is left: so be it
		}
	}
}

// runHost runs a command that ends with this process, and when the asker hangs up.
func runHost(conn net.Conn, req hostRequest, stdout, stderr *os.File) (int, error) {
	// Pdeathsig is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var cmd *exec.Cmd
	switch {
	case req.Func != "":
		cmd = exec.CommandContext(ctx, selfExe, req.Argv...)
		cmd.Args[0] = funcPrefix + req.Func
	case len(req.Argv) == 0:
		return 0, errors.New("no program given")
	default:
		cmd = exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	}
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = req.Env, req.Dir, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	defer Interruptible(ctx, cmd)()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // ends when the asker hangs up, or with serveOne
		cancel()
	}()
	err := cmd.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err() // the asker knows why
	}
	return exitCode(err), nil
}
