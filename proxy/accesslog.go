package proxy

import (
	"bytes"
	"strconv"

	"github.com/rs/zerolog"

	"lbd/proxy/internal/inbound"
)

// requestLine begins a line about a request: at info when the access log is on,
// one in so many, else at debug. It is nil when nothing is to be written.
func (s *Server) requestLine(cfg *Config) *zerolog.Event {
	if !cfg.AccessLog {
		return s.opt.Log.Debug()
	}
	if n := uint64(max(cfg.AccessLogSample, 1)); s.logged.Add(1)%n != 0 {
		return nil
	}
	return s.opt.Log.Info()
}

// accessLog writes the line of a request that was relayed or should have been.
func (s *Server) accessLog(x *exchange, strategy string) {
	ev := s.requestLine(x.cfg)
	if ev == nil {
		return
	}
	ev.Bytes("method", x.head.method).Bytes("path", pathOnly(x.head.target)).Int("status", x.status).
		Dur("duration_ms", x.now.Sub(x.start)).Bytes("request_id", x.head.id).Str("client", x.client.RemoteAddr().String())
	if x.keyName != "" {
		ev.Str("key", x.keyName)
	}
	if x.want.model != nil {
		ev.Str("model", x.want.model.Name).Str("strategy", strategy)
	}
	if x.replica != nil {
		ev.Str("replica", x.replica.ID).Int("attempts", x.picks)
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
	if ev := s.requestLine(s.cfg.Load()); ev != nil {
		req := c.Request()
		ev.Bytes("method", req.Method).Bytes("path", pathOnly(req.Target)).Int("status", e.status).
			Str("client", c.RemoteAddr().String()).Str("refused", e.code).Msg("request")
	}
}

func pathOnly(target []byte) []byte {
	path, _, _ := bytes.Cut(target, []byte("?"))
	return path
}
