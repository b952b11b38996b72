package world

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// readSysctl returns the value of a kernel setting ("kernel.x"), or "" where the kernel does not have it.
func readSysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// explain makes a sentence of err: what is missing and what to do about it.
func explain(err error, sysctl func(name string) string) error {
	root := os.Geteuid() == 0
	switch {
	case errors.Is(err, unix.ENOSPC) && sysctl("user.max_user_namespaces") == "0": // so says a kernel of now, an older one EPERM
		return fmt.Errorf("%w: user namespaces are turned off; as root run sysctl -w user.max_user_namespaces=10000, or run this as root", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: a limit on namespaces is reached; raise user.max_net_namespaces, user.max_pid_namespaces, user.max_mnt_namespaces and user.max_user_namespaces with sysctl -w", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: this kernel lacks namespaces (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS); use another kernel or a virtual machine", err)
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return err
	case !root && sysctl("kernel.unprivileged_userns_clone") == "0":
		return fmt.Errorf("%w: this kernel forbids user namespaces to ordinary users; as root run sysctl -w kernel.unprivileged_userns_clone=1, or run this as root", err)
	case sysctl("user.max_user_namespaces") == "0":
		return fmt.Errorf("%w: user namespaces are turned off; as root run sysctl -w user.max_user_namespaces=10000, or run this as root", err)
	case sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
		return fmt.Errorf("%w: AppArmor takes the powers away from user namespaces of ordinary users; as root run sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run this as root", err)
	case root:
		return fmt.Errorf("%w: this root may not make namespaces, as in most containers; run the container with --privileged (or with CAP_SYS_ADMIN and CAP_NET_ADMIN and without a seccomp and AppArmor profile), or run this on the machine itself", err)
	default:
		return fmt.Errorf("%w: namespaces are forbidden here, as in most containers; run this as root, on the machine itself, or in a container with --privileged", err)
	}
}
