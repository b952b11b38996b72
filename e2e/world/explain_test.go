package world

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEveryRefusalOfTheKernelHasARemedy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("inside a world one is root")
	}
	for name, c := range map[string]struct {
		err    error
		sysctl map[string]string
		want   string
	}{
		"too many":       {unix.ENOSPC, nil, "user.max_net_namespaces"},
		"old kernel":     {unix.EINVAL, nil, "CONFIG_USER_NS"},
		"none allowed":   {unix.ENOSPC, map[string]string{"user.max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=10000"},
		"turned off":     {unix.EPERM, map[string]string{"user.max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=10000"},
		"AppArmor":       {unix.EACCES, map[string]string{"kernel.apparmor_restrict_unprivileged_userns": "1"}, "apparmor_restrict_unprivileged_userns=0"},
		"container":      {unix.EPERM, nil, "--privileged"},
		"something else": {unix.ENOMEM, nil, "cannot allocate memory"},
	} {
		t.Run(name, func(t *testing.T) {
			got := explain(fmt.Errorf("start: %w", c.err), func(n string) string { return c.sysctl[n] })
			if !strings.Contains(got.Error(), c.want) || !errors.Is(got, c.err) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
