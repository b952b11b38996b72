package world_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// roleEnv makes the test binary another program, which the tests run as a world within theirs.
const roleEnv = "WORLD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each of the many short processes here
	}
	world.Enter(world.Funcs{
		"say": func(args []string) int {
			fmt.Print(strings.Join(args, " "))
			return 3
		},
		"links": func([]string) int {
			fmt.Print(linkNames())
			return 0
		},
		"ask":     ask,
		"ordered": ordered,
		"sleep": func([]string) int {
			fmt.Println("sleeping")
			time.Sleep(time.Hour)
			return 0
		},
	})
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// linkNames are the network links that the calling process sees.
func linkNames() string {
	links, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, l := range links {
		names = append(names, fmt.Sprintf("%s:%t", l.Name, l.Flags&net.FlagUp != 0))
	}
	return strings.Join(names, ",")
}

// play is the program inside a nested world.
func play(role string) int {
	switch role {
	case "who": // uid, pid, links
		fmt.Printf("%d %d %s", os.Getuid(), os.Getpid(), linkNames())
	case "code":
		return 42
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "family": // a child in a session of its own, and one whose parent is gone
		for range 2 {
			cmd := world.FuncCommand("sleep")
			cmd.Stdout = os.Stdout
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		time.Sleep(time.Hour)
	case "signal":
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1)
		fmt.Println("ready")
		for s := range c {
			fmt.Println(s)
			if s == syscall.SIGTERM {
				return 7
			}
		}
	case "forbidden": // no namespace may be made within this world
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
			fmt.Println(err)
			return 3
		}
		cmd := nested("code")
		cmd.Stderr = os.Stdout
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode()
	case "orphans": // pid 1 reaps what its parent left behind
		return orphans()
	}
	return 0
}

// ask connects to args[0], says hello, closes its half, and prints the answer.
func ask(args []string) int {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	fmt.Fprint(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(os.Stdout, c)
	return 0
}
