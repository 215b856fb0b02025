// Package load loads one server that speaks the Kafka protocol with as little
// work of its own as it can, and says what that cost the server: CPU-seconds from
// the kernel's accounting, bytes, latency, memory. The same code loads any server,
// so two of them compare in one run on one machine.
//
// Produce sends the same encoded request again and again: the CRC of a batch does
// not cover its offsets (KIP-98), so its bytes stay valid. Fetch lets the kernel
// drop the records unread and knows the next offset from the size of one batch.
// Latency sends at a fixed rate and times each request from when it was due, so a
// stall counts for all that had to wait (no coordinated omission).
package load
