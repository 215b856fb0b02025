package failpoint

import "testing"

func TestHitsCount(t *testing.T) {
	ended := 0
	old := end
	end = func() { ended++ }
	defer func() { end = old; Arm("") }()
	Hit(Put)
	if err := Arm("put:3,roll:1"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		Hit(Put)
		if want := 0; i >= 2 {
			want = 1
			if ended != want {
				t.Fatalf("hit %d: ended %d times", i+1, ended)
			}
		}
	}
	Hit(Verify)
	Hit(Roll)
	if ended != 2 {
		t.Fatalf("ended %d times", ended)
	}
	for _, bad := range []string{"put", "put:0", "nowhere:1", "put:x", ","} {
		if Arm(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
