package fetch

import (
	"io"

	"github.com/firnlog/firn/internal/disk"
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
	len      int
	regions  []Region
	releases []func()
}

func (r *pieces) add(g Region, release func()) {
	r.len += int(g.Len)
	r.regions = append(r.regions, g)
	r.releases = append(r.releases, release)
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
	for _, g := range r.regions {
		var m int64
		if g.File == nil {
			var k int
			k, err = w.Write(g.Bytes)
			m = int64(k)
		} else {
			m, err = io.Copy(w, io.NewSectionReader(g.File, g.Pos, g.Len))
			if err == nil && m < g.Len {
				err = io.ErrUnexpectedEOF
			}
		}
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *pieces) Release() {
	releases := r.releases
	r.releases = nil
	for _, release := range releases {
		release()
	}
}
