package proxy

import (
	"bytes"
	"strconv"

	"github.com/rs/zerolog"

	"lbd/proxy/internal/inbound"
)

// The lines of requests are written whole, in the order in which the requests ended and
// behind all lines that were written before, and none is left out while lbd runs and the
// log can be written: one that is read too slowly makes requests wait for room, and
// nobody else. A request that has a goroutine
// waits itself. One that is relayed in turns of a loop takes room before its answer is
// passed on, and gets a goroutine where there is none. A line is handed in before the
// last bytes of its answer are sent, as all accounts are done; it is written soon after.

// Lines takes the lines of requests, which do not wait until they are written.
type Lines interface {
	// Try takes room for a line. It returns false, at once, when there is none.
	Try() bool
	// Wait takes room for a line as soon as there is some.
	Wait()
	// Give gives back room that is not needed.
	Give()
	// Put hands in a line for which there is room, and keeps nothing of p. It does not wait.
	Put(p []byte)
}

// putter has a logger write into room that was taken.
type putter struct{ Lines }

func (p putter) Write(line []byte) (int, error) {
	p.Put(line)
	return len(line), nil
}

// lineState is what a request has to do with the log.
type lineState uint8

const (
	undecided lineState = iota
	noLine
	hasLine
	hasRoom // for the line
)

// says whether lines of a level are written.
func (s *Server) says(level zerolog.Level) bool {
	return level >= max(s.opt.Log.GetLevel(), zerolog.GlobalLevel())
}

// decide says whether a request has a line: at info when the access log is on, one in
// so many, else at debug.
func (s *Server) decide(cfg *Config) lineState {
	wanted := s.says(zerolog.DebugLevel)
	if cfg.AccessLog {
		wanted = s.says(zerolog.InfoLevel) && s.logged.Add(1)%uint64(max(cfg.AccessLogSample, 1)) == 0
	}
	if wanted {
		return hasLine
	}
	return noLine
}

// logs says whether the request has a line.
func (x *exchange) logs() bool {
	if x.line == undecided {
		x.line = x.s.decide(x.cfg)
	}
	return x.line != noLine
}

// logsAtOnce says that the request's line, if it has one, makes nobody wait.
func (x *exchange) logsAtOnce() bool {
	if !x.logs() {
		return true
	}
	if l := x.s.opt.Lines; l == nil || !l.Try() {
		return false
	}
	x.line = hasRoom
	return true
}

// giveRoom gives back room that is not used now: a request that goes on elsewhere may
// take minutes.
func (x *exchange) giveRoom() {
	if x.line == hasRoom {
		x.line = hasLine
		x.s.opt.Lines.Give()
	}
}

// line begins the line of a request that has one. It is nil when nothing is written after
// all: the level may have changed.
func (s *Server) line(cfg *Config) *zerolog.Event {
	if cfg.AccessLog {
		return s.lines.Info()
	}
	return s.lines.Debug()
}

// accessLog writes the line of a request that was relayed or should have been.
func (x *exchange) accessLog(strategy string) {
	if !x.logs() {
		return
	}
	if l := x.s.opt.Lines; l != nil && x.line != hasRoom {
		l.Wait()
		x.line = hasRoom
	}
	ev := x.s.line(x.cfg)
	if ev == nil {
		return
	}
	ev.Bytes("method", x.head.method).Bytes("path", pathOnly(x.head.target)).Int("status", x.status).
		Dur("duration_ms", x.now.Sub(x.start)).Bytes("request_id", x.head.id).Str("client", x.owner.address(x.client))
	if x.keyName != "" {
		ev.Str("key", x.keyName)
	}
	if x.want.model != nil {
		if !x.want.any {
			ev.Str("model", x.want.model.Name)
		}
		ev.Str("strategy", strategy)
	} else if x.want.unknown != nil { // under another name: it is what a client has made up
		ev.Bytes("model_asked", x.want.unknown)
	}
	if x.replica != nil {
		ev.Str("replica", x.replica.ID).Int("attempts", x.picks)
	}
	if x.own != nil {
		ev.Str("error", x.own.code)
		if x.own.status >= 500 { // others may repeat what the client has sent
			ev.Str("reason", x.own.message)
		}
	}
	if x.ticket.Waited > 0 {
		ev.Dur("held_ms", x.ticket.Waited)
	}
	if !x.sniff.First.IsZero() && x.sniff.SSE {
		ev.Dur("ttft_ms", x.sniff.First.Sub(x.start))
	}
	if x.promptBytes > 0 {
		ev.Int("prompt_bytes", x.promptBytes)
	}
	switch u := x.sniff.Usage; {
	case u.Prompt > 0:
		ev.Int("prompt_tokens", u.Prompt).Int("completion_tokens", u.Completion)
		if u.Cached >= 0 {
			ev.Int("cached_tokens", u.Cached)
		}
	case x.sniff.Events > 0:
		ev.Int("content_events", x.sniff.Events)
	}
	if len(x.blocks) > 0 {
		ev.Array("prefix", blockHashes(x.blocks))
	}
	ev.Msg("request")
	x.line = noLine // there is one only, and it has used the room
}

// blockHashes writes hashes in hexadecimal: JSON's numbers do not hold 64 bits.
type blockHashes []uint64

func (b blockHashes) MarshalZerologArray(a *zerolog.Array) {
	for _, h := range b {
		a.Str(strconv.FormatUint(h, 16))
	}
}

// logRefused writes the line of a request that no replica was asked for.
func (s *Server) logRefused(c *inbound.Conn, e *apiError) {
	cfg, l := s.cfg.Load(), s.opt.Lines
	if s.decide(cfg) == noLine {
		return
	}
	if l != nil {
		l.Wait()
	}
	ev := s.line(cfg)
	switch {
	case ev != nil:
		req := c.Request()
		ev.Bytes("method", req.Method).Bytes("path", pathOnly(req.Target)).Int("status", e.status).
			Bytes("request_id", e.id).Str("client", c.RemoteAddr().String()).Str("refused", e.code).Msg("request")
	case l != nil:
		l.Give()
	}
}

func pathOnly(target []byte) []byte {
	path, _, _ := bytes.Cut(target, []byte("?"))
	return path
}
