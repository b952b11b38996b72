package wds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/internal/encode"
)

// A snapshot file is snapshotMagic, the format, the SHA-256 of the rest, and the rest: a protobuf message of the fields below. The format goes up
// when what is kept of a resource changes.
const (
	snapshotMagic  = "isthmus-wds\n"
	snapshotFormat = 2
	snapshotMax    = 1 << 30 // bytes

	fieldNode    = 1 // who we are
	fieldTime    = 2 // unix seconds
	fieldName    = 3 // asked for; repeated
	fieldAddress = 4 // istio.workload.Address; repeated
	fieldPolicy  = 5 // istio.security.Authorization; repeated
	fieldAllPols = 6 // all policies have come
	fieldAll     = 7 // it holds all there is; else only what was asked for: that something is not in it says nothing
)

// The fields that are known.
var snapshotFields = fields{
	fieldNode: text, fieldTime: number, fieldName: text, fieldAddress: text, fieldPolicy: text, fieldAllPols: number, fieldAll: number,
}

// saveAfter is how long changes are gathered before the file is written.
const saveAfter = 3 * time.Second

// saver is told of changes; capacity 1.
type saver chan struct{}

func (s saver) changed() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// save writes the file after changes, and when ctx ends.
func (c *Client) save(ctx context.Context) {
	for over := false; !over; {
		select {
		case <-c.saver:
			select {
			case <-time.After(saveAfter):
			case <-ctx.Done():
				over = true
			}
		case <-ctx.Done():
			over = true
		}
		if !c.worthSaving() {
			continue
		}
		if err := writeSnapshot(c.cfg.SnapshotFile, c.snapshot(time.Now())); err != nil {
			c.cfg.logger().Warn("wds: what istiod told cannot be kept on disk", "error", err)
		}
	}
}

// worthSaving reports whether there is more than a file told.
func (c *Client) worthSaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stats.Answered.IsZero()
}

// snapshot is the file's content.
func (c *Client) snapshot(now time.Time) []byte {
	c.mu.Lock()
	names := slices.Sorted(maps.Keys(c.names))
	v := c.now.Load()
	switch { // what is held is from then
	case v.online:
	case !c.stats.FromFile.IsZero():
		now = c.stats.FromFile
	default:
		now = c.stats.Answered
	}
	if from := c.policiesFrom; !from.IsZero() && from.Before(now) { // istiod has said nothing of them since: they are no younger for being written again
		now = from
	}
	all := v.complete && c.wildcard()
	c.mu.Unlock()
	var b []byte
	add := func(num protowire.Number, value []byte) {
		b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), value)
	}
	number := func(num protowire.Number, n uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
	}
	add(fieldNode, []byte(c.cfg.who()))
	number(fieldTime, uint64(now.Unix()))
	for _, name := range names {
		add(fieldName, []byte(name))
	}
	for s := range v.table.Services() {
		add(fieldAddress, encode.Service(s))
	}
	for w := range v.table.Workloads() {
		add(fieldAddress, encode.Workload(w))
	}
	for _, p := range v.policies {
		add(fieldPolicy, encode.Policy(p))
	}
	if v.allPols && len(v.badPols) == 0 { // else a policy is missing that would deny
		number(fieldAllPols, 1)
	}
	if all {
		number(fieldAll, 1)
	}
	sum := sha256.Sum256(b)
	head := binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotFormat)
	return append(append(head, sum[:]...), b...)
}

// who is what a file must be of.
func (c *Config) who() string {
	return fmt.Sprintf("%s\n%s\n%s\n%v", c.Node.nodeID(), c.Node.ClusterID, c.Node.Network, c.Wildcard)
}

// unfinishedAge is for how long a file may be written at most; what is older was left by a process that ended meanwhile.
const unfinishedAge = time.Minute

// unfinished is how files are called that are being written, before and after a number.
func unfinished(path string) (before, after string) {
	return "." + filepath.Base(path) + ".", ".unfinished"
}

// tidy removes what processes left that ended while they wrote path: a folder that outlives them must not fill up. Others may be at it now.
func tidy(path string, now time.Time) (err error) {
	list, err := os.ReadDir(filepath.Dir(path))
	before, after := unfinished(path)
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), before) || !strings.HasSuffix(e.Name(), after) || !e.Type().IsRegular() {
			continue
		}
		st, statErr := e.Info()
		if statErr != nil || now.Sub(st.ModTime()).Abs() < unfinishedAge { // gone, or being written
			continue
		}
		if gone := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// writeSnapshot replaces path by data in one step.
func writeSnapshot(path string, data []byte) (err error) {
	before, after := unfinished(path)
	f, err := os.CreateTemp(filepath.Dir(path), before+"*"+after) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// restore reads the file. What is wrong with it is logged: istiod will tell anew.
func (c *Client) restore(now time.Time) {
	if err := tidy(c.cfg.SnapshotFile, now); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.cfg.logger().Warn("wds: what was left unfinished on disk cannot be removed", "file", c.cfg.SnapshotFile, "error", err)
	}
	err := c.readSnapshot(now)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.cfg.logger().Warn("wds: what was kept on disk is not used", "file", c.cfg.SnapshotFile, "error", err)
	}
}

func (c *Client) readSnapshot(now time.Time) error {
	f, st, err := openRegular(c.cfg.SnapshotFile)
	if err != nil {
		return err
	}
	defer f.Close()
	switch {
	case st.Mode().Perm()&0o022 != 0 || !ours(st):
		return fmt.Errorf("others can write to it (mode %v): give it to us alone, or remove it", st.Mode())
	case st.Size() > snapshotMax:
		return fmt.Errorf("it has %d bytes, of which %d are allowed", st.Size(), snapshotMax)
	}
	data, err := io.ReadAll(io.LimitReader(f, snapshotMax))
	if err != nil {
		return err
	}
	return c.load(data, now)
}

// load takes what a snapshot file held, all or nothing.
func (c *Client) load(data []byte, now time.Time) error {
	data, ok := bytes.CutPrefix(data, []byte(snapshotMagic))
	if !ok || len(data) < 4+sha256.Size {
		return errors.New("it is no snapshot of ours")
	}
	if format := binary.BigEndian.Uint32(data); format != snapshotFormat {
		return fmt.Errorf("it has format %d, and ours is %d", format, snapshotFormat)
	}
	sum, body := data[4:4+sha256.Size], data[4+sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return errors.New("it is damaged: its checksum is wrong")
	}
	h := newHeld()
	var who string
	var written time.Time
	var names []string
	allPols, all := false, false
	err := walk(body, snapshotFields, func(f field) error {
		switch f.num {
		case fieldNode:
			who = string(f.bytes)
		case fieldTime:
			written = time.Unix(int64(f.n), 0)
		case fieldName:
			names = append(names, string(f.bytes))
		case fieldAllPols:
			allPols = f.n == 1
		case fieldAll:
			all = f.n == 1
		case fieldAddress:
			w, s, err := decodeAddress(f.bytes, &h.texts)
			switch {
			case err != nil:
				return err
			case w != nil:
				h.table.SetWorkload(w)
				h.holds(w.UID, "", len(f.bytes))
			default:
				h.table.SetService(s)
				h.holds(s.Key(), "", len(f.bytes))
			}
		case fieldPolicy:
			p, err := decodeAuthorization(f.bytes)
			if err != nil {
				return err
			}
			if c.cfg.Policies { // else nobody asks istiod what has become of them
				h.policies[p.Key()] = p
				h.morePols.set(p.Key(), len(f.bytes))
			}
		}
		if max(len(h.versions)+h.more.sum, len(h.policies)+h.morePols.sum) > c.cfg.maxResources() {
			return fmt.Errorf("it holds more than %d resources (Config.MaxResources)", c.cfg.maxResources())
		}
		return nil
	})
	age := now.Sub(written)
	most := c.cfg.snapshotMaxAge()
	switch {
	case err != nil:
		return err
	case who != c.cfg.who():
		return errors.New("it is of another node")
	case most > 0 && age > most, age < -time.Hour:
		return fmt.Errorf("it was written at %v, too long ago (Config.SnapshotMaxAge is %v) or yet to come", written, most)
	}
	h.restored, h.restoredPols = true, true
	c.held = h
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if len(c.names) <= c.cfg.maxNames() && c.names[name] == nil && route.ValidName(name) {
			c.names[name] = &asked{}
		}
	}
	c.stats.FromFile = written
	c.had.Store(all)
	if c.cfg.Policies {
		c.policiesFrom = written
	}
	table, policies := h.table.Snapshot(), maps.Clone(h.policies)
	c.publish(func(v *view) {
		v.table, v.complete = table, all
		v.policies, v.allPols = policies, allPols && c.cfg.Policies
	})
	return nil
}
