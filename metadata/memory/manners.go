package memory

import (
	"maps"
	"time"

	"github.com/firnlog/firn/metadata"
)

// Manners are the chances, from 0 to 1, of each thing JetStream has been seen to
// do. The zero value behaves.
type Manners struct {
	// StaleRead answers a Get with an older version, or says the key is missing.
	StaleRead float64
	// LostRequest forgets a write, LostAck makes it and says nothing, LateWrite
	// makes it some time after the caller gave up. InFlight refuses it as "in
	// flight". All are metadata.ErrInDoubt to the caller.
	LostRequest, LostAck, LateWrite, InFlight float64
	// SilentConflict reports a conflict without the present revision.
	SilentConflict float64
	// WatchLate delays what a watch reports, by up to WatchDelay.
	WatchLate  float64
	WatchDelay time.Duration
	// WatchRepeat reports an entry once more, after later ones. WatchBreak ends
	// a watch. WatchSilent lets watches report nothing after they caught up.
	WatchRepeat, WatchBreak float64
	WatchSilent             bool
}

func (s *Server) rollLocked(chance float64) bool {
	return chance > 0 && s.mu.rng.Float64() < chance
}

// Behave changes the manners.
func (s *Server) Behave(m Manners) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.manners = m
}

// settleLocked lets some of the writes that are under way land.
func (s *Server) settleLocked() {
	for len(s.mu.pending) > 0 && s.rollLocked(0.5) {
		land := s.mu.pending[0]
		s.mu.pending = s.mu.pending[1:]
		land()
	}
}

// Settle lets every write that is under way land.
func (s *Server) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, land := range s.mu.pending {
		land()
	}
	s.mu.pending = nil
}

// Down makes the server unreachable, or reachable again. Watches break.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.down = down
	s.mu.breaks++
	s.notifyLocked()
}

// BreakWatches ends every watch.
func (s *Server) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.breaks++
	s.notifyLocked()
}

// Backup is a copy of the bucket.
type Backup struct {
	created time.Time
	last    uint64
	keys    map[string]metadata.Entry
}

// Backup copies the bucket.
func (s *Server) Backup() Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Backup{s.mu.created, s.mu.last, maps.Clone(s.mu.keys)}
}

// Restore puts a backup in place of the bucket: acknowledged writes since are
// lost, and revisions will be used again.
func (s *Server) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.created, s.mu.last, s.mu.keys = b.created, b.last, maps.Clone(b.keys)
	clear(s.mu.older)
	s.mu.pending = nil
	s.mu.breaks++
	s.notifyLocked()
}

// Recreate makes the bucket another one with the same content, as a restore by
// copying keys does.
func (s *Server) Recreate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.created = s.mu.created.Add(time.Second)
	s.mu.breaks++
	s.notifyLocked()
}

// DropBucket loses everything.
func (s *Server) DropBucket() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.exists, s.mu.last = false, 0
	clear(s.mu.keys)
	clear(s.mu.older)
	s.mu.pending = nil
	s.mu.breaks++
	s.notifyLocked()
}

// LoseKey loses one key while the revision goes on growing, as minority
// corruption does.
func (s *Server) LoseKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.keys, key)
	delete(s.mu.older, key)
	s.mu.last++
	s.notifyLocked()
}

// RevertKey brings back the last but one value of a key, under its old revision.
func (s *Server) RevertKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.older[key]
	s.mu.keys[key] = old[len(old)-1]
	s.mu.last++
	s.notifyLocked()
}

// Keys lists the keys there are.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for k, e := range s.mu.keys {
		if !e.Deleted {
			out = append(out, k)
		}
	}
	return out
}
