package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/firnlog/firn/objectstore"
)

// Error is a request that failed, in one line. errors.Is finds Kind and the
// cause.
type Error struct {
	Op, Key string
	Status  int    // of the answer, 0 without one
	Code    string // the store's, such as SlowDown
	Message string
	Kind    error // a sentinel of objectstore, or nil
	Cause   error
}

func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Op)
	if e.Key != "" {
		s.WriteString(" " + e.Key)
	}
	if e.Kind != nil {
		s.WriteString(": " + e.Kind.Error())
	}
	if e.Status != 0 {
		fmt.Fprintf(&s, ": status %d", e.Status)
	}
	if e.Code != "" {
		s.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		s.WriteString(": " + strings.TrimSuffix(e.Message, "."))
	}
	if e.Status == 0 && e.Cause != nil {
		s.WriteString(": " + rootOf(e.Cause))
	}
	return strings.Join(strings.Fields(s.String()), " ")
}

// Unwrap gives errors.Is both the kind and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Cause} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// rootOf drops what the libraries put around an error of the network.
func rootOf(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		if _, ok := err.(interface{ Timeout() bool }); ok && !strings.Contains(fmt.Sprintf("%T", err), "url.") {
			return err.Error()
		}
		err = next
	}
}

// Codes that mean the same whatever the status.
var (
	codesDenied = []string{"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException", "RequestTimeTooSkewed", "AllAccessDisabled", "AccountProblem", "InvalidSecurity",
		"XAdminUserNotFound"} // versitygw, with a 404, for an access key that it does not know
	codesCorrupt = []string{"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidChecksum"}
	codesUnknown = []string{"RequestTimeout", "RequestTimeoutException", "OperationAborted", "ConditionalRequestConflict", "SlowDown", "InternalError", "ServiceUnavailable"}
)

// failed names an error of a request that changes nothing, or nothing that
// repeating would not.
func (b *Bucket) failed(op, key string, ex *exchange, err error) error {
	e := b.describe(op, key, ex, err)
	switch {
	case e.Kind != nil:
	case e.Status == http.StatusNotFound:
		e.Kind = objectstore.ErrNotFound
	case e.Status == http.StatusRequestedRangeNotSatisfiable:
		e.Kind = objectstore.ErrRange
	}
	return e
}

// failedPut names an error of a Put. What is not proven to have had no effect is
// in doubt: only a 4xx that is neither a conflict nor a timeout proves it, or
// that no connection was had.
func (b *Bucket) failedPut(key string, ex *exchange, err error, c objectstore.Cond) error {
	e := b.describe("put", key, ex, err)
	if e.Kind != nil {
		return e
	}
	_, sent := ex.sent()
	switch s := e.Status; {
	case s == http.StatusPreconditionFailed:
		e.Kind = objectstore.ErrPrecondition
	case s == http.StatusNotImplemented && c != (objectstore.Cond{}):
		e.Kind = objectstore.ErrNoConditional
	case s == http.StatusConflict, s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s == 499,
		slices.Contains(codesUnknown, e.Code):
		e.Kind = objectstore.ErrInDoubt
	case s == http.StatusNotFound && c.IfMatch != "":
		e.Kind = objectstore.ErrNotFound
	case s >= 300 && s < 500:
	case s == 0 && !sent:
	default:
		e.Kind = objectstore.ErrInDoubt
	}
	return e
}

// describe fills an Error and the kinds that are common to all operations.
func (b *Bucket) describe(op, key string, ex *exchange, err error) *Error {
	e := &Error{Op: op, Key: key, Status: ex.status(), Cause: err}
	e.Code, e.Message = b.api.explain(err)
	reached, sent := ex.sent()
	switch {
	case errors.Is(err, objectstore.ErrCorrupt):
		e.Message = err.Error()
	case e.Status == 0 && reached && !sent && !errors.Is(err, context.Canceled):
		e.Kind = objectstore.ErrUnreachable
	case e.Status >= 200 && e.Status < 300:
		e.Message = rootOf(err) // a body that broke off, or could not be read
	case e.Code == "NoSuchBucket":
		e.Kind = objectstore.ErrNoBucket
	case e.Status == http.StatusForbidden, e.Status == http.StatusUnauthorized, slices.Contains(codesDenied, e.Code):
		e.Kind = objectstore.ErrDenied
	case slices.Contains(codesCorrupt, e.Code):
		e.Kind = objectstore.ErrCorrupt
	}
	return e
}
