package load

import (
	"slices"
	"time"
)

// Options say what to send where. The zero value of a field takes the default in
// its comment.
type Options struct {
	Addr       string            // HOST:PORT of any broker; partition leaders are looked up
	Topic      string            //
	Partitions int               // default 1
	Replicas   int               // replication factor when creating; default 1
	Create     bool              // make the topic when it is missing
	Config     map[string]string // of the topic, when creating

	Batch  int    // records in a batch; default 128
	Record int    // bytes of a record's value, half of them random; default 1024
	Codec  string // none, gzip, snappy, zstd; default none
	Acks   int16  // 0, 1, -1

	Conns    int           // connections a leader; default 1
	Depth    int           // requests in flight on a connection; default 4
	For      time.Duration // at most this long; default 10 s
	Bytes    int64         // at most these bytes of batches; 0: no limit
	From     int64         // Fetch: first offset of every partition
	FetchMax int32         // Fetch: partition max bytes; default 1 MiB
	Rate     int           // Latency: requests a second; default 1,000
	Pace     int64         // Fetch: at most these bytes a second; 0: no limit

	PIDs []int // the server's processes
}

func (o *Options) defaults() {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.Partitions, 1)
	set(&o.Replicas, 1)
	set(&o.Batch, 128)
	set(&o.Record, 1024)
	set(&o.Conns, 1)
	set(&o.Depth, 4)
	set(&o.Rate, 1000)
	if o.Codec == "" {
		o.Codec = "none"
	}
	if o.For == 0 {
		o.For = 10 * time.Second
	}
	if o.FetchMax == 0 {
		o.FetchMax = 1 << 20
	}
}

// Result is what was done and what it cost the server.
type Result struct {
	Bytes    int64         `json:"bytes"`
	Requests int64         `json:"requests"`
	Records  int64         `json:"records"`
	Wall     time.Duration `json:"wall_ns"`
	CPU      float64       `json:"server_cpu_s"` // user and system, of all processes
	RSS      float64       `json:"server_rss_mib"`
	Peak     float64       `json:"server_peak_mib"`
	// Latencies are sorted.
	Latencies []time.Duration `json:"-"`
}

// MiBPerSecond is the rate of batches' bytes.
func (r *Result) MiBPerSecond() float64 { return float64(r.Bytes) / (1 << 20) / r.Wall.Seconds() }

// CPUPerGiB is the server's CPU-seconds for each GiB of batches.
func (r *Result) CPUPerGiB() float64 { return r.CPU / (float64(r.Bytes) / (1 << 30)) }

// CPUPerRequest is the server's CPU-microseconds for each request.
func (r *Result) CPUPerRequest() float64 { return r.CPU * 1e6 / float64(max(1, r.Requests)) }

// Quantile is the latency below which a part q of the requests was.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	return r.Latencies[min(len(r.Latencies)-1, int(q*float64(len(r.Latencies))))]
}

// Merge adds a later run with the same server to r.
func (r *Result) Merge(o Result) {
	r.add(o)
	r.Wall += o.Wall
	r.CPU += o.CPU
	r.RSS, r.Peak = o.RSS, o.Peak
	slices.Sort(r.Latencies)
}

func (r *Result) add(o Result) {
	r.Bytes += o.Bytes
	r.Requests += o.Requests
	r.Records += o.Records
	r.Latencies = append(r.Latencies, o.Latencies...)
}
