package spine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/integration/node"
)

// named are the keys that the manifests name, as `firn bucket ls` tells them, with
// no broker asked.
func named(t *testing.T, n *node.Node) map[string]bool {
	t.Helper()
	cmd := n.Command()
	cmd.Args = []string{cmd.Args[0], "bucket", "ls", "t", "--objects", "--bucket", "file://" + filepath.Join(n.DataDir, "bucket"), "-o", "json"}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var topics []struct {
		Partitions []struct {
			Named []struct {
				Key string `json:"key"`
			} `json:"named"`
		} `json:"partitions"`
	}
	if err := json.Unmarshal(out, &topics); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	keys := map[string]bool{}
	for _, topic := range topics {
		for _, p := range topic.Partitions {
			for _, o := range p.Named {
				keys[o.Key] = true
			}
		}
	}
	return keys
}

// stored are the segment objects in the bucket's folder.
func stored(t *testing.T, n *node.Node) map[string]bool {
	t.Helper()
	root := filepath.Join(n.DataDir, "bucket")
	keys := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "firn", "topics"), func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // it went while we walked
		}
		if err == nil && strings.HasSuffix(path, ".seg") {
			rel, _ := filepath.Rel(root, path)
			keys[filepath.ToSlash(rel)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// strangers are the objects that no manifest names.
func strangers(t *testing.T, n *node.Node) (all []string) {
	t.Helper()
	there := stored(t, n) // before the names: what is uploaded meanwhile is named or new
	names := named(t, n)
	for key := range there {
		if !names[key] {
			all = append(all, key)
		}
	}
	return all
}

// nothingIsLeft restarts the node with an orphan age of a moment and plants a
// stranger in a range that the bucket covers. While the producers go on it goes, and
// so does all that the kills left; what they upload meanwhile stays, as the replay
// of everything from the bucket shows.
func nothingIsLeft(t *testing.T, n *node.Node, h *hammer) {
	t.Helper()
	left := strangers(t, n)
	n.Kill()
	var planted string
	for key := range named(t, n) {
		// The same range and epoch under a nonce that nobody wrote.
		planted = key[:strings.LastIndex(key, "-")+1] + "00000000deadbeef.seg"
		data, err := os.ReadFile(filepath.Join(n.DataDir, "bucket", filepath.FromSlash(key)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.DataDir, "bucket", filepath.FromSlash(planted)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		break
	}
	if planted == "" {
		t.Fatal("the bucket names nothing")
	}
	n.Args = append(n.Args, "--set", "firn.remote.orphan.age.ms=500", "--set", "firn.remote.delete.grace.ms=500", "--set", "firn.remote.scrub.interval.ms=1000")
	n.Up()
	count := h.ledger.Count()
	waitFor(t, 60*time.Second, func() bool {
		for _, key := range append(left, planted) {
			if stored(t, n)[key] {
				return false
			}
		}
		return h.ledger.Count() > count+1000
	})
	h.stop()
	// The last uploads and their leftovers settle.
	deadline := time.Now().Add(60 * time.Second)
	for all := strangers(t, n); len(all) > 0; all = strangers(t, n) {
		if time.Now().After(deadline) {
			t.Fatalf("no manifest names %v", all)
		}
		<-time.After(200 * time.Millisecond)
	}
	t.Logf("verify: %d strangers and one planted are gone, %d objects stay", len(left), len(stored(t, n)))
	verify(t, n, h.ledger, "t")
}
