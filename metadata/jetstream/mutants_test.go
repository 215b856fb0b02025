package jetstream

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of docs/SAFETY.md.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	const settings, contract = "TestTheEmbeddedServerIsWhatWeRelyOn", "TestEmbeddedKeepsTheContract"
	m.Catch("1 the server syncs before it acknowledges", "embed.go", `SyncAlways:             true,`, `SyncAlways:             false,`, settings)
	m.Catch("16 the bucket is in files", "jetstream.go", `Storage: jetstream.FileStorage`, `Storage: jetstream.MemoryStorage`, settings)
	m.Catch("16 the bucket keeps one value of a key", "jetstream.go", `History: 1,`, `History: 2,`, settings)
	m.Catch("16 no key expires", "jetstream.go", `History: 1,`, `History: 1, TTL: 24 * 365 * time.Hour,`, settings)
	m.Catch("16 the server has no port", "embed.go", `DontListen: true,`, `Host: "127.0.0.1", Port: -1,`, settings)
	m.Catch("16 the server has no monitor", "embed.go", `DontListen: true,`, `DontListen: true, HTTPHost: "127.0.0.1", HTTPPort: -1,`, settings)
	m.Catch("22 the server's files have a bound", "embed.go", `JetStreamMaxStore:      cfg.MaxStore,`, ``, settings)
	m.Catch("16 a stopped server is noticed soon", "jetstream.go", `defaultPingInterval = 500 * time.Millisecond`, `defaultPingInterval = 2 * time.Minute`, "TestASilentServerIsAskedTwiceASecond")
	m.Catch("16 no bucket is not a missing key", "jetstream.go", `fmt.Errorf("%w: %w", metadata.ErrUnavailable, metadata.ErrNoBucket)`, `metadata.ErrNotFound`, contract)
	m.Catch("16 no answer is not a missing key", "jetstream.go", `	if err != nil {
		return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	var answer`, `	if err != nil {
		return e, metadata.ErrNotFound
	}
	var answer`, contract)
	m.Catch("16 an unreachable store is not a lost bucket", "jetstream.go", `		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return`, `		if err != nil {
			return`, "TestAnUnreachableStoreIsNotALostOne")
	m.Catch("17 the bucket's age is the stream's", "jetstream.go", `Created: info.Created,`, `Created: info.TimeStamp,`, "TestRestartKeepsEverything|"+contract)
	m.Catch("17 the newest revision is the stream's", "jetstream.go", `LastRevision: info.State.LastSeq`, `LastRevision: info.State.FirstSeq`, "TestRestartKeepsEverything|"+contract)
	m.Catch("17 a deletion has a revision", "jetstream.go", `	e.Revision = answer.Message.Sequence
`, ``, contract)
	m.Catch("4 a write names the revision it is based on", "jetstream.go", `jetstream.WithExpectLastSequencePerSubject(rev), `, ``, contract)
	m.Catch("4 so does each write of a batch", "batch.go", `			expectSubject: []string{strconv.FormatUint(e.Revision, 10)},
`, ``, contract)
	m.Catch("4 10164 is in flight, no conflict", "jetstream.go", `		return errInFlight
	case errors.As(err, &api) && api.Code != 503`, `		return &metadata.ConflictError{Key: key}
	case errors.As(err, &api) && api.Code != 503`, "TestOnlyAnAnswerCanBeARefusal")
	m.Catch("4 no answer is no refusal", "jetstream.go", `	return fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
}

// currentSequence`, `	return err
}

// currentSequence`, "TestOnlyAnAnswerCanBeARefusal|"+contract)
	m.Catch("4 a stream without a leader has refused nothing", "jetstream.go", `api.Code != 503 && api.Code != 408`, `api.Code != 408`, "TestOnlyAnAnswerCanBeARefusal")
	m.Catch("4 a batch that was cut short is in doubt", "batch.go", `if ack.Count != n || ack.Sequence < uint64(n) {`, `if ack.Sequence < uint64(n) {`, "TestABatchHasOneAnswer")
	m.Catch("4 the revisions of a batch end at the one that is told", "batch.go", `ack.Sequence - uint64(n) + uint64(i) + 1`, `ack.Sequence + uint64(i)`, contract)
}
