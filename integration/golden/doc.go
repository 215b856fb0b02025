// Package golden keeps what released builds have written, and opens it with the
// present one: a data dir and its bucket, and beside them what a client read and
// what a group had committed. Nobody's disk may become unreadable by an upgrade.
//
//	integration/testdata/golden/VERSION/state.tar.zst   data/ and bucket/, after a clean stop
//	integration/testdata/golden/VERSION/expect.txt      what to find in them, one fact a line
//
// VERSION is what `firn version` says. A release adds its folder, and none ever
// changes:
//
//	FIRN_TEST_BINARY=$PWD/bin/firn go test ./integration/golden -args -write
//
// Read write_test.go for what is in the state, then open_test.go.
package golden
