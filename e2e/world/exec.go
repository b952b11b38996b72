package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ExecFunc runs a command for somebody outside of the world, with the standard input, output and error that are his, and returns its exit
// code. It must end soon after ctx.
type ExecFunc func(ctx context.Context, argv []string, std [3]*os.File) (code int, err error)

// ServeExec lets users outside of the world, by Exec, have commands run until ctx ends: over a Unix socket at path, which only the user himself
// may use, and which the caller removes. It returns when it listens; wait returns when ctx has ended and all commands have.
func ServeExec(ctx context.Context, path string, run ExecFunc) (wait func(), err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	at, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer done()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unixpacket", at)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // at is no name for it then
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveExec(ctx, c.(*net.UnixConn), run) })
		}
	})
	return wg.Wait, nil
}

// shortPath is another name for a path, short enough for a Unix socket's, until done is called.
func shortPath(path string) (short string, done func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

// serveExec answers one request.
func serveExec(ctx context.Context, conn *net.UnixConn, run ExecFunc) {
	defer conn.Close()
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	size, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return
	}
	files, err := rightsOf(oob[:oobn])
	if err != nil {
		return
	}
	for _, f := range files {
		defer f.Close()
	}
	var req hostRequest
	if err := json.Unmarshal(buf[:size], &req); err != nil || len(req.Argv) == 0 || len(files) != 3 {
		answer(conn, hostReply{Error: "a request that makes no sense"}, nil)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // ends when the asker hangs up, or with serveExec
		cancel()
	}()
	code, err := run(ctx, req.Argv, [3]*os.File(files))
	answer(conn, hostReply{Code: code, Error: text(err)}, nil)
}

// Exec has a command run where ServeExec listens at path, with the standard files of this process, and returns its exit code. A terminal
// cannot be read by it. The command is ended when this process ends, or ctx does.
func Exec(ctx context.Context, path string, argv []string) (int, error) {
	at, done, err := shortPath(path)
	if err != nil {
		return 0, fmt.Errorf("reach the world: %w", err)
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", at)
	if err != nil {
		return 0, fmt.Errorf("reach the world: %w", err)
	}
	conn := c.(*net.UnixConn)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	ask, err := json.Marshal(hostRequest{Argv: argv})
	if err != nil {
		return 0, err
	}
	rights := unix.UnixRights(int(os.Stdin.Fd()), int(os.Stdout.Fd()), int(os.Stderr.Fd()))
	if _, _, err := conn.WriteMsgUnix(ask, rights, nil); err != nil {
		return 0, fmt.Errorf("reach the world: %w", err)
	}
	reply, _, err := readReply(conn)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, err
	case reply.Error != "":
		return 0, errors.New(reply.Error)
	}
	return reply.Code, nil
}
