package wds

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// snapshotConfig is of a client that keeps a file.
func snapshotConfig(istiod *wdstest.Istiod, file string) Config {
	c := scaleConfig(istiod, false)
	c.SnapshotFile, c.Policies = file, true
	return c
}

func open(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// soon is a context for what must not wait.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var guarded = netip.MustParseAddr("20.0.0.1") // FillWorkload(1, 0)

// kept runs a client that learns something, and ends it; what it kept is in the file.
func kept(t *testing.T) (istiod *wdstest.Istiod, file string) {
	t.Helper()
	istiod, file = wdstest.New(t), filepath.Join(t.TempDir(), "snapshot")
	istiod.Fill(3, 2)
	istiod.SetPolicy(&authz.Policy{Namespace: "team-1", Name: "nobody", Scope: authz.ScopeNamespace})
	c := open(t, snapshotConfig(istiod, file))
	for n := range 2 {
		if _, err := c.Resolve(soon(t), "tcp", addressOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	if d := c.Authorizer(guarded).Decide(soon(t), authz.Conn{}); d.Allow || d.Missing {
		t.Fatalf("%+v", d)
	}
	c.Close()
	return istiod, file
}

// After a restart what was kept answers before istiod does, and istiod's answer replaces it, also what went meanwhile.
func TestARestartWithoutIstiod(t *testing.T) {
	istiod, file := kept(t)
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
	istiod.Stop()
	c := open(t, snapshotConfig(istiod, file))
	for n := range 2 {
		r, err := c.Resolve(soon(t), "tcp", addressOf(n))
		if err != nil || len(r.Hops) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if d := c.Authorizer(guarded).Decide(soon(t), authz.Conn{}); d.Allow || d.Missing {
		t.Errorf("%+v", d)
	}
	if st := c.Stats(); st.Online || st.FromFile.IsZero() || st.Stale(st.FromFile.Add(time.Hour)) != time.Hour || st.Services != 2 {
		t.Errorf("%+v", st)
	}
	istiod.Remove(wdstest.AddressType, wdstest.FillWorkload(0, 0).UID)
	istiod.Remove(wdstest.AddressType, wdstest.FillService(1).Key())
	istiod.Remove(wdstest.PolicyType, "team-1/nobody")
	istiod.Start(t)
	for deadline := time.Now().Add(10 * time.Second); ; {
		changed := c.Changed()
		_, err := c.Resolve(soon(t), "tcp", addressOf(1))
		_, gone := errors.AsType[*route.Error](err)
		if gone && c.Authorizer(guarded).Decide(soon(t), authz.Conn{}).Allow {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("what went meanwhile is still there: %v", err)
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
	if st := c.Stats(); !st.Online || !st.FromFile.IsZero() || st.Services != 1 || st.Policies != 0 {
		t.Errorf("%+v", st)
	}
}

// What is wrong with a file is said, and the client starts without it.
func TestAFileThatIsNotUsed(t *testing.T) {
	istiod, file := kept(t)
	istiod.Stop()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data   []byte
		mode   os.FileMode
		change func(*Config)
		want   string
	}{
		"as it was":            {good, 0o600, nil, ""},
		"empty":                {nil, 0o600, nil, "no snapshot of ours"},
		"cut off":              {good[:len(good)-1], 0o600, nil, "damaged"},
		"a bit has changed":    {append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), 0o600, nil, "damaged"},
		"another format":       {bytes.Replace(good, []byte("wds\n\x00\x00\x00\x02"), []byte("wds\n\x00\x00\x00\x01"), 1), 0o600, nil, "has format 1, and ours is 2"},
		"not ours at all":      {[]byte("#!/bin/sh\n"), 0o600, nil, "no snapshot of ours"},
		"others can write":     {good, 0o622, nil, "others can write"},
		"another node":         {good, 0o600, func(c *Config) { c.Node.Namespace = "other" }, "of another node"},
		"another cluster":      {good, 0o600, func(c *Config) { c.Node.ClusterID = "other" }, "of another node"},
		"wildcard, it was not": {good, 0o600, func(c *Config) { c.Wildcard = true }, "of another node"},
		"too old":              {good, 0o600, func(c *Config) { c.SnapshotMaxAge = time.Nanosecond }, "too long ago"},
		"of any age":           {good, 0o600, func(c *Config) { c.SnapshotMaxAge = -1 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			cfg := snapshotConfig(istiod, path)
			if tt.change != nil {
				tt.change(&cfg)
			}
			c := newClient(t.Context(), func() {}, cfg)
			err := c.readSnapshot(time.Now())
			if used := c.Stats().Services > 0; used != (tt.want == "") || used != (err == nil) {
				t.Errorf("used: %v, %v", used, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	var log bytes.Buffer
	cfg := snapshotConfig(istiod, filepath.Join(t.TempDir(), "none"))
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	newClient(t.Context(), func() {}, cfg).restore(time.Now())
	if log.Len() > 0 {
		t.Errorf("a file that is not there yet is complained of: %s", &log)
	}
}

// What a process left that was killed while it wrote is removed at the next start, and nothing else is: a folder that outlives processes does not fill up.
func TestUnfinishedFilesAreRemoved(t *testing.T) {
	istiod, file := kept(t)
	istiod.Stop()
	dir := filepath.Dir(file)
	var written string // as writeSnapshot calls it
	full := filepath.Join(t.TempDir(), "full")
	if err := os.Mkdir(full, 0o700); err != nil { // what cannot be replaced: by then the name was used
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := writeSnapshot(full, nil)
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		written = strings.ReplaceAll(filepath.Base(link.Old), "full", filepath.Base(file))
	}
	if left, err := os.ReadDir(filepath.Dir(full)); written == "" || err != nil || len(left) != 1 {
		t.Fatalf("a file that was not put in place is left: %v, %v (%q)", left, err, written)
	}
	hour, now := time.Now().Add(-time.Hour), time.Now()
	for name, at := range map[string]time.Time{
		written: hour, ".snapshot.1.unfinished": now.Add(time.Hour), ".snapshot.young.unfinished": now,
		"snapshot.123": hour, ".other.123.unfinished": hour, ".snapshot.123.bak": hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("half a fil"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".snapshot.folder.unfinished"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, ".snapshot.folder.unfinished"), hour, hour); err != nil {
		t.Fatal(err)
	}
	c := open(t, snapshotConfig(istiod, file))
	var left []string
	list, err := os.ReadDir(dir)
	for _, e := range list {
		left = append(left, e.Name())
	}
	want := []string{".other.123.unfinished", ".snapshot.123.bak", ".snapshot.folder.unfinished", ".snapshot.young.unfinished", "snapshot", "snapshot.123"}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("there are %q, %v; want %q", left, err, want)
	}
	if st := c.Stats(); st.Services != 2 {
		t.Errorf("%+v", st)
	}
}

// A policy that cannot be read would deny; a file without it must not let it be forgotten.
func TestAFileWithoutAPolicyIsNotComplete(t *testing.T) {
	istiod, file := wdstest.New(t), filepath.Join(t.TempDir(), "snapshot")
	istiod.Fill(2, 1)
	istiod.SetRaw(wdstest.PolicyType, "team-1/bad", []byte{0xff})
	c := open(t, snapshotConfig(istiod, file))
	if _, err := c.Resolve(soon(t), "tcp", addressOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	for c.Stats().Refused == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	istiod.Stop()
	a := open(t, snapshotConfig(istiod, file)).Authorizer(guarded)
	a.Wait = -1
	if d := a.Decide(soon(t), authz.Conn{}); d.Allow || !d.Missing {
		t.Errorf("%+v", d)
	}
}

// Whatever is in the file, nothing breaks, and what is refused leaves nothing.
func FuzzSnapshot(f *testing.F) {
	c := idle(f)
	c.take(response(addressType, nil, map[string]msg{"uid": aPod, "shop/cart": aService}))
	c.take(response(authorizationType, nil, map[string]msg{"shop/p": policy(nil)}))
	good := c.snapshot(time.Unix(1_800_000_000, 0))
	f.Add(good)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, in []byte) {
		c := idle(t)
		if err := c.load(in, time.Unix(1_800_000_000, 0)); err != nil {
			if st := c.Stats(); st.Services+st.Workloads+st.Policies != 0 || !st.FromFile.IsZero() {
				t.Fatalf("%+v after %v", st, err)
			}
			return
		}
		again := idle(t)
		if err := again.load(c.snapshot(time.Unix(1_800_000_000, 0)), time.Unix(1_800_000_000, 0)); err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
		a, b := c.Stats(), again.Stats()
		if a.Services != b.Services || a.Workloads != b.Workloads || a.Policies != b.Policies {
			t.Fatalf("%+v is read again as %+v", a, b)
		}
	})
}
