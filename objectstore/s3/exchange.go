package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
)

// exchange is what the transport saw of the requests of one call: the libraries
// hide it, and it decides whether a Put can have taken effect.
type exchange struct {
	mu       sync.Mutex
	tried    bool // a request reached the transport
	had      bool // it got a connection: bytes may have left
	response *http.Response
}

type exchangeKey struct{}

// watch makes ctx carry an exchange.
func watch(ctx context.Context) (context.Context, *exchange) {
	ex := &exchange{}
	ctx = context.WithValue(ctx, exchangeKey{}, ex)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		ex.mu.Lock()
		ex.had = true
		ex.mu.Unlock()
	}}), ex
}

// watched is the transport of both drivers.
type watched struct{ next http.RoundTripper }

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	ex, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if ex != nil {
		ex.mu.Lock()
		ex.tried, ex.response = true, nil
		ex.mu.Unlock()
	}
	resp, err := w.next.RoundTrip(r)
	if ex != nil && err == nil {
		ex.mu.Lock()
		ex.response = resp
		ex.mu.Unlock()
	}
	return resp, err
}

// status is that of the last answer, 0 without one.
func (ex *exchange) status() int {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.response == nil {
		return 0
	}
	return ex.response.StatusCode
}

// header is that of the last answer, empty without one.
func (ex *exchange) header() http.Header {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.response == nil {
		return http.Header{}
	}
	return ex.response.Header
}

// sent says whether a request may have left this machine; reached, whether one
// got as far as the transport.
func (ex *exchange) sent() (reached, sent bool) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	return ex.tried, ex.had
}

// Both drivers must show one ETag for one object, whatever they do with quotes.
func unquote(etag string) string { return strings.Trim(etag, `"`) }
func quote(etag string) string   { return `"` + etag + `"` }

const crcHeaderName = "X-Amz-Checksum-Crc32c"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

func encodeCRC(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// crcHeader is the CRC-32C of the whole object that the store keeps. That of an
// object uploaded in parts is a checksum of checksums and says nothing to us.
func crcHeader(h http.Header) (uint32, bool) {
	if t := h.Get("X-Amz-Checksum-Type"); t != "" && t != "FULL_OBJECT" {
		return 0, false
	}
	p, err := base64.StdEncoding.DecodeString(h.Get(crcHeaderName))
	if err != nil || len(p) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(p), true
}
