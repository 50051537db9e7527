package daemon

import (
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/lines"
)

// NewLogger returns the logger a configuration asks for, and what it writes to, which is
// to be closed when nothing logs any more. That is nil for the format for people: to turn
// a line into it takes too long for a loop, so requests do it themselves.
func NewLogger(w io.Writer, c *config.Config) (zerolog.Logger, *lines.Writer) {
	setLevel(c.LogLevel)
	if c.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w)}
		return newLogger(w), nil
	}
	var log zerolog.Logger
	lw := lines.New(w, func(lost int, err error) { log.Warn().Err(err).Int("lines", lost).Msg("lines of requests were lost") })
	log = newLogger(lw)
	return log, lw
}

func newLogger(w io.Writer) zerolog.Logger { return zerolog.New(w).With().Timestamp().Logger() }

// zerolog has one format for all loggers. RFC 3339 with milliseconds: an access log
// is replayed from its times.
func init() { zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" }

// setLevel is global in zerolog, so that a reload reaches loggers that were
// handed out.
func setLevel(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		panic("BUG: log level " + name + " got past the configuration")
	}
	zerolog.SetGlobalLevel(level)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
