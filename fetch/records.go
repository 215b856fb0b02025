package fetch

import (
	"io"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/localcache"
)

// Region is a run of bytes in a file, or in memory when File is nil.
type Region struct {
	File disk.File
	Pos  int64
	Len  int64
	// Bytes are the bytes themselves when they are in memory. Nobody may write
	// to them.
	Bytes []byte
}

// Records are whole batches, one behind the other, in a few regions. The bytes
// stay readable until Release, whatever is trimmed or evicted meanwhile.
type Records interface {
	// Len is the number of bytes.
	Len() int
	// Regions are the pieces, in order: a file region goes out by sendfile.
	Regions() []Region
	// File is the region when there is exactly one and it is in a file.
	File() (f disk.File, pos int64, ok bool)
	// WriteTo copies everything to w.
	WriteTo(w io.Writer) (int64, error)
	// Release gives the bytes back. Only the first call counts.
	Release()
}

// none is the Records of an empty answer, shared by all.
type none struct{}

func (none) Len() int                         { return 0 }
func (none) Regions() []Region                { return nil }
func (none) File() (disk.File, int64, bool)   { return nil, 0, false }
func (none) WriteTo(io.Writer) (int64, error) { return 0, nil }
func (none) Release()                         {}

var noRecords Records = none{}

// pieces are Records from one tier.
type pieces struct {
	len     int
	regions []Region
	chunks  []*localcache.Handle // of the regions; none when they are not the cache's
}

// add takes over the caller's reference to h.
func (r *pieces) add(g Region, h *localcache.Handle) {
	r.len += int(g.Len)
	r.regions = append(r.regions, g)
	r.chunks = append(r.chunks, h)
}

// Unreadable says that a region of r, by its number, cannot be read, and why. What the
// cache has of it is then fetched anew for the next who asks; without this each retry
// of the client would meet the same bytes. It must come before Release.
func Unreadable(r Records, region int, why error) {
	if p, ok := r.(*pieces); ok {
		p.unreadable(region, why)
	}
}

func (r *pieces) unreadable(region int, why error) {
	if region < len(r.chunks) {
		r.chunks[region].Discard(why)
	}
}

func (r *pieces) Len() int          { return r.len }
func (r *pieces) Regions() []Region { return r.regions }

func (r *pieces) File() (disk.File, int64, bool) {
	if len(r.regions) != 1 || r.regions[0].File == nil {
		return nil, 0, false
	}
	return r.regions[0].File, r.regions[0].Pos, true
}

func (r *pieces) WriteTo(w io.Writer) (n int64, err error) {
	for i, g := range r.regions {
		var m int64
		if g.File == nil {
			var k int
			k, err = w.Write(g.Bytes)
			m = int64(k)
		} else {
			file := source{Reader: io.NewSectionReader(g.File, g.Pos, g.Len)}
			m, err = io.Copy(w, &file)
			if err == nil && m < g.Len {
				err, file.err = io.ErrUnexpectedEOF, io.ErrUnexpectedEOF
			}
			if file.err != nil {
				r.unreadable(i, file.err)
			}
		}
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// source tells a failure of what is read from one of where it is written to.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (r *pieces) Release() {
	chunks := r.chunks
	r.chunks = nil
	for _, h := range chunks {
		h.Release()
	}
}
