package clients

import (
	"slices"
	"testing"
)

// TestDifferenceSeesEveryField changes one thing of a record at a time: the
// judge of all cases must notice each.
func TestDifferenceSeesEveryField(t *testing.T) {
	whole := func() record {
		return record{Partition: 1, Offset: 2, Timestamp: 3, Key: []byte("k"), Value: []byte{}, Headers: []header{{"h", []byte("v")}, {"n", nil}}}
	}
	if d := difference(whole(), whole()); d != "" {
		t.Fatal(d)
	}
	for name, change := range map[string]func(*record){
		"partition":       func(r *record) { r.Partition++ },
		"offset":          func(r *record) { r.Offset++ },
		"timestamp":       func(r *record) { r.Timestamp++ },
		"key":             func(r *record) { r.Key = []byte("K") },
		"null key":        func(r *record) { r.Key = nil },
		"null, not empty": func(r *record) { r.Value = nil },
		"value":           func(r *record) { r.Value = []byte("x") },
		"header gone":     func(r *record) { r.Headers = r.Headers[:1] },
		"header order":    func(r *record) { slices.Reverse(r.Headers) },
		"header name":     func(r *record) { r.Headers[0].Key = "H" },
		"header value":    func(r *record) { r.Headers[0].Value = []byte("V") },
		"header null":     func(r *record) { r.Headers[1].Value = []byte{} },
	} {
		r := whole()
		change(&r)
		if difference(r, whole()) == "" || difference(whole(), r) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
}

// TestKcatOutputIsReadByLength has keys and values full of what ends lines and fields.
func TestKcatOutputIsReadByLength(t *testing.T) {
	out := "0 5 1000 3 -1 a=one,n=NULL\n1\n2\n2 6 -1 -1 4 \n 7 \t\n"
	got, err := parseKcat([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	want := []record{
		{Partition: 0, Offset: 5, Timestamp: 1000, Key: []byte("1\n2"), Headers: []header{{"a", []byte("one")}, {"n", nil}}},
		{Partition: 2, Offset: 6, Timestamp: -1, Value: []byte(" 7 \t")},
	}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if d := difference(got[i], want[i]); d != "" {
			t.Errorf("record %d %s", i, d)
		}
	}
	for cut := 1; cut < len(out)-20; cut++ {
		if rs, err := parseKcat([]byte(out[:cut])); err == nil && len(rs) > 1 {
			t.Fatalf("cut at %d: %d records", cut, len(rs))
		}
	}
}

// TestWorkloadHasEveryShape keeps the cases from losing what they are about.
func TestWorkloadHasEveryShape(t *testing.T) {
	var nullKeys, nullValues, emptyKeys, emptyValues, big, nullHeaders, none int
	for _, r := range workload(300, lacks{}) {
		switch {
		case r.Key == nil:
			nullKeys++
		case len(r.Key) == 0:
			emptyKeys++
		}
		switch {
		case r.Value == nil:
			nullValues++
		case len(r.Value) == 0:
			emptyValues++
		case len(r.Value) == bigRecord:
			big++
		}
		if len(r.Headers) == 0 {
			none++
		} else if slices.ContainsFunc(r.Headers, func(h header) bool { return h.Value == nil }) {
			nullHeaders++
		}
	}
	if nullKeys != 30 || nullValues != 30 || emptyKeys != 30 || emptyValues != 30 || big != 1 || nullHeaders != 200 || none != 100 {
		t.Fatalf("null keys %d, null values %d, empty keys %d, empty values %d, big %d, null headers %d, no headers %d",
			nullKeys, nullValues, emptyKeys, emptyValues, big, nullHeaders, none)
	}
}
