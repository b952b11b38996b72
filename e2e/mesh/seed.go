package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

// A seed is what etcd holds when the API server has made itself at home and all CRDs are established. Each start but the first puts it into
// its etcd before the API server starts, which then finds all done that takes it longest: checking and taking up CRDs one by one. It is kept
// beside the API server's program and is as old as that; nothing of it belongs to one mesh alone.

// entry is a key of etcd and its value.
type entry struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// ofOneMesh begin the keys that no other mesh may have: who leads, what has happened, whom the API server trusts.
func ofOneMesh() []string {
	return []string{"/registry/leases/", "/registry/masterleases/", "/registry/events/", "/registry/configmaps/kube-system/extension-apiserver-authentication"}
}

// Limits of one request to etcd, below its own.
const (
	seedKeys  = 100
	seedBytes = 512 << 10
)

// seedPath is where the seed is. It changes with the API server and with the CRDs.
func (m *Mesh) seedPath() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, nodeAddr())
	for _, name := range []programs.Name{programs.IstioCRDs, programs.GatewayCRDs} {
		b, err := m.readFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, len(b))
		h.Write(b)
	}
	return filepath.Join(filepath.Dir(m.Programs.Path(programs.KubeAPIServer)), fmt.Sprintf("seed-%x.json", h.Sum(nil)[:6])), nil
}

// readSeed reads a seed. One that is broken is removed, as if it had never been there.
func readSeed(path string) ([]entry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []entry
	if err := json.Unmarshal(b, &all); err != nil || len(all) == 0 {
		return nil, errors.Join(os.ErrNotExist, os.Remove(path))
	}
	return all, nil
}

// plant puts the seed into etcd, which is empty, and reports whether there was one.
func (m *Mesh) plant(ctx context.Context) (bool, error) {
	path, err := m.seedPath()
	if err != nil {
		return false, err
	}
	all, err := readSeed(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the API server's seed: %w", err)
	}
	type put struct {
		Put entry `json:"requestPut"`
	}
	var batch struct {
		Success []put `json:"success"`
	}
	size := 0
	for i, e := range all {
		batch.Success = append(batch.Success, put{e})
		if size += len(e.Key) + len(e.Value); size < seedBytes && len(batch.Success) < seedKeys && i < len(all)-1 {
			continue
		}
		if err := m.askEtcd(ctx, "txn", batch, nil); err != nil {
			if ctx.Err() != nil {
				return false, fmt.Errorf("etcd is not ready in time: put the API server's seed into it: %w", err)
			}
			return false, fmt.Errorf("put the API server's seed into etcd: %w", err)
		}
		batch.Success, size = batch.Success[:0], 0
	}
	return true, nil
}

// harvest keeps what etcd holds as the seed of later starts. A seed that cannot be kept costs them time, and is no error of this one.
func (m *Mesh) harvest(ctx context.Context) {
	err := func() error {
		path, err := m.seedPath()
		if err != nil {
			return err
		}
		var got struct {
			All []entry `json:"kvs"`
		}
		const first, end = "/registry/", "/registry0" // 0 is what comes after /
		if err := m.askEtcd(ctx, "range", map[string][]byte{"key": []byte(first), "range_end": []byte(end)}, &got); err != nil {
			return err
		}
		b, err := json.Marshal(slices.DeleteFunc(got.All, func(e entry) bool {
			return slices.ContainsFunc(ofOneMesh(), func(p string) bool { return strings.HasPrefix(string(e.Key), p) })
		}))
		if err != nil {
			return err
		}
		part, err := os.CreateTemp(filepath.Dir(path), "seed-*.part")
		if err != nil {
			return err
		}
		_, err = part.Write(b)
		if err = errors.Join(err, part.Close()); err == nil {
			err = os.Rename(part.Name(), path)
		}
		if err != nil {
			return errors.Join(err, os.Remove(part.Name()))
		}
		return nil
	}()
	if err != nil {
		m.say("later starts take longer than they need to: %v", err)
	}
}

// askEtcd sends one request of etcd's JSON API and reads the answer into out, if that is not nil.
func (m *Mesh) askEtcd(ctx context.Context, method string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdClient+"/v3/kv/"+method, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := m.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answers %s: %.200s", res.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
