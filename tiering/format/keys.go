package format

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Names of objects below a partition's folder.
const (
	HeadName   = "manifest"
	partPrefix = "manifest."
	segSuffix  = ".seg"
	TopicName  = "topic.json"
)

// NonceSize is the length in bytes of a nonce in a key, twice that in hex.
const NonceSize = 8

// Nonce tells two attempts at the same object apart.
type Nonce [NonceSize]byte

func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// ClusterKey is where a cluster says what it is.
func ClusterKey(cluster string) string { return cluster + "/cluster.json" }

// TopicFolder is the prefix of all objects of a topic; id is the topic id as
// Kafka prints it.
func TopicFolder(cluster, id string) string { return cluster + "/topics/" + id + "/" }

// PartitionFolder is the prefix of all objects of a partition.
func PartitionFolder(cluster, id string, partition int32) string {
	return TopicFolder(cluster, id) + strconv.Itoa(int(partition)) + "/"
}

// SegmentName names a segment object within its partition's folder. The numbers
// have 20 digits, so that a listing is in the order of offsets.
func SegmentName(base, end int64, epoch int32, nonce Nonce) string {
	return fmt.Sprintf("%020d-%020d-%020d-%s%s", base, end, epoch, nonce, segSuffix)
}

// PartName names a part within its partition's folder.
func PartName(from, to int64, nonce Nonce) string {
	return fmt.Sprintf("%s%020d-%020d.%s", partPrefix, from, to, nonce)
}

// Name is a parsed name of a segment object or of a part.
type Name struct {
	Part      bool
	Base, End int64 // of a part: from, to
	Epoch     int32 // -1 of a part
	Nonce     Nonce
}

// ParseName reads a name that SegmentName or PartName made. ok is false for any
// other, the head's included.
func ParseName(name string) (n Name, ok bool) {
	if rest, isPart := strings.CutPrefix(name, partPrefix); isPart {
		offsets, nonce, found := strings.Cut(rest, ".")
		if !found || len(offsets) != 41 || offsets[20] != '-' {
			return Name{}, false
		}
		n.Part, n.Epoch = true, -1
		return n, digits(offsets[:20], &n.Base) && digits(offsets[21:], &n.End) && n.Base <= n.End && unhex(nonce, &n.Nonce)
	}
	rest, isSeg := strings.CutSuffix(name, segSuffix)
	if !isSeg || len(rest) != 63+2*NonceSize || rest[20] != '-' || rest[41] != '-' || rest[62] != '-' {
		return Name{}, false
	}
	var epoch int64
	ok = digits(rest[:20], &n.Base) && digits(rest[21:41], &n.End) && digits(rest[42:62], &epoch) && unhex(rest[63:], &n.Nonce)
	n.Epoch = int32(epoch)
	return n, ok && n.Base < n.End && epoch == int64(n.Epoch)
}

func digits(s string, v *int64) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	*v = n
	return err == nil
}

func unhex(s string, n *Nonce) bool {
	if len(s) != 2*NonceSize || s != strings.ToLower(s) {
		return false
	}
	_, err := hex.Decode(n[:], []byte(s))
	return err == nil
}
