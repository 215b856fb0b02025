// Package failpoint ends the process, as kill -9 does, at named places of its
// code, so that tests can cut it down exactly where a crash is most likely to do
// harm. Unarmed, a place costs one load of a pointer.
//
// Arm("put:3") ends the process when it reaches Put for the third time. A list
// with commas arms several; whoever comes first ends it.
package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// The places.
const (
	Append         = "append"          // a batch is in the log, its producer has not heard
	Fsync          = "fsync"           // before the sync of a log's files
	Synced         = "synced"          // after it, before anybody is told
	Roll           = "roll"            // a new segment's file exists, nothing points to it
	Checkpoint     = "checkpoint"      // before a checkpoint is written
	Recovery       = "recovery"        // in the middle of a log's recovery
	Put            = "put"             // before the PUT of an object
	Verify         = "verify"          // the object is there, unverified, nobody names it
	ManifestCommit = "manifest-commit" // before the compare-and-set of a head
	Committed      = "committed"       // the head names the object, this process does not know yet
	LocalDelete    = "local-delete"    // the bucket was asked, the local segments are about to go
)

// Names are all places.
var Names = []string{Append, Fsync, Synced, Roll, Checkpoint, Recovery, Put, Verify, ManifestCommit, Committed, LocalDelete}

var armed atomic.Pointer[map[string]*atomic.Int64]

// Arm sets the places at which the process ends: NAME:N, N counting from 1,
// several with commas. An empty spec disarms.
func Arm(spec string) error {
	if spec == "" {
		armed.Store(nil)
		return nil
	}
	m := map[string]*atomic.Int64{}
	for part := range strings.SplitSeq(spec, ",") {
		name, nth, _ := strings.Cut(part, ":")
		n, err := strconv.ParseInt(nth, 10, 64)
		if err != nil || n < 1 || !slices.Contains(Names, name) {
			return fmt.Errorf("failpoint %q: want NAME:N with a name of %s", part, strings.Join(Names, ", "))
		}
		m[name] = &atomic.Int64{}
		m[name].Store(n)
	}
	armed.Store(&m)
	return nil
}

// Hit ends the process when name is armed and its count has come. It does not
// return then.
func Hit(name string) {
	m := armed.Load()
	if m == nil {
		return
	}
	if left := (*m)[name]; left != nil && left.Add(-1) == 0 {
		end()
	}
}

// end is replaced by the package's own test.
var end = func() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes when it comes; nothing may happen meanwhile
}
