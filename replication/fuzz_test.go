package replication

import "testing"

// FuzzMeta: meta.json is read as it was written or refused, and what is accepted is
// written the same again.
func FuzzMeta(f *testing.F) {
	good, err := encodeMeta(DirMeta{ClusterID: "id", ClusterName: "c", NodeID: 1, DirID: "d", Incarnation: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add([]byte(`{"magic":"firn-data-dir","major":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m DirMeta
		if decodeMeta(raw, &m) != nil {
			return
		}
		again, err := encodeMeta(m)
		if err != nil {
			t.Fatal(err)
		}
		var n DirMeta
		if err := decodeMeta(again, &n); err != nil {
			t.Fatalf("%s is accepted, and %s is not: %v", raw, again, err)
		}
		m.Checksum, n.Checksum, m.Minor, n.Minor = 0, 0, 0, 0
		if m != n {
			t.Fatalf("%+v became %+v", m, n)
		}
	})
}
