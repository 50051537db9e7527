package daemon

import (
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"lbd/cmd/lbd/internal/config"
)

// NewLogger returns the logger a configuration asks for.
func NewLogger(w io.Writer, c *config.Config) zerolog.Logger {
	if c.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w)}
	}
	setLevel(c.LogLevel)
	return zerolog.New(w).With().Timestamp().Logger()
}

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
