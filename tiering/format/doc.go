// Package format is the bytes of the bucket: segment objects, the head and the
// parts of a partition's manifest, and the JSON that says what a cluster and a
// topic are. One codec for whoever writes and whoever reads: tiering, fetch,
// and readers that know nothing of a broker.
//
//	<cluster>/cluster.json                                  Cluster
//	<cluster>/topics/<topic id>/topic.json                  Topic
//	<cluster>/topics/<topic id>/<partition>/
//	    <base>-<end>-<epoch>-<nonce>.seg                    chunks, Footer, trailer
//	    manifest                                            Head: what the partition is, now
//	    manifest.<from>-<to>.<nonce>                        Part: entries that left the head
//
// Heads, parts and footers are frames: a magic of eight bytes, major and minor
// version, the length, a body in protobuf's wire format, and a CRC-32C over all
// of it. Numbers of fields never change their meaning; unknown fields are
// skipped; an unknown major version is refused (ErrVersion) and everything else
// that is not as written is ErrCorrupt. No length is believed before the bytes
// are there, so a decoder allocates no more than a small multiple of its input.
//
// Read keys.go, then head.go and part.go, footer.go and segment.go, json.go.
package format
