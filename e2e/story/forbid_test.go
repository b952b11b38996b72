package story_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
)

// forbidEnv makes the test binary one of a machine that forbids nftables.
const forbidEnv = "ISTHMUS_TEST_FORBID_NFTABLES"

// forbidNFTables makes the kernel answer EPERM to whoever in this process and its children wants to speak with netfilter; there is no way back.
func forbidNFTables() error {
	const (
		nr, domain, protocol = 0, 16, 32 // offsets in seccomp_data
		load                 = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal                = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer               = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: nr},
		{Code: equal, K: unix.SYS_SOCKET, Jf: 5},
		{Code: load, K: domain},
		{Code: equal, K: unix.AF_NETLINK, Jf: 3},
		{Code: load, K: protocol},
		{Code: equal, K: unix.NETLINK_NETFILTER, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("forbid nftables by seccomp: %w", errno)
	}
	return nil
}

// TestStoryWhereNFTablesAreForbidden lets the node find out by itself that it must do without. It runs first: the others' world takes memory.
func TestStoryWhereNFTablesAreForbidden(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestStory$", "-test.v")
	cmd.Env = append(os.Environ(), forbidEnv+"=1", capture.ZtunnelEnv+"=") // a ztunnel needs nftables
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestStory") {
		t.Error(err)
	}
}
