package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is a NATS server inside this process. It has no listener: the only
// way in is a connection within the process.
type embedded struct{ s *server.Server }

// startEmbedded starts a server over dir.
func startEmbedded(cfg Config) (*embedded, error) {
	o := &server.Options{
		ServerName: "firn-" + cfg.Cluster,
		DontListen: true,
		NoSigs:     true, // signals are the program's
		// Without bounds JetStream claims most of the machine. The store's bound
		// keeps it from filling the disk it shares with the log (SAFETY 22).
		JetStream:              true,
		JetStreamMaxMemory:     16 << 20,
		JetStreamMaxStore:      cfg.MaxStore,
		StoreDir:               cfg.Dir,
		SyncAlways:             true, // the default acknowledges two minutes before it syncs
		DisableJetStreamBanner: true,
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("start the embedded metadata server in %s: %w", cfg.Dir, err)
	}
	s.SetLoggerV2(serverLog{cfg.Logger}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(cfg.StartTimeout) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("the embedded metadata server in %s was not ready after %v", cfg.Dir, cfg.StartTimeout)
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("the embedded metadata server has no JetStream: is its folder writable?")
	}
	return &embedded{s}, nil
}

func (e *embedded) close() {
	e.s.Shutdown()
	e.s.WaitForShutdown()
}

// serverLog passes the server's log on. Its notices are of no interest to an
// operator of firn; its warnings are ("orphaned stream", "corrupt").
type serverLog struct{ l *slog.Logger }

func (l serverLog) log(level slog.Level, format string, v []any) {
	l.l.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, v...)), "event", "nats_server")
}

func (l serverLog) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l serverLog) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l serverLog) Errorf(format string, v ...any)  { l.log(slog.LevelError, format, v) }
func (l serverLog) Fatalf(format string, v ...any)  { l.log(slog.LevelError, format, v) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {}

var _ server.Logger = serverLog{}

const defaultStartTimeout = 15 * time.Second
