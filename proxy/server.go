package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"lbd/balancer"
	"lbd/metrics"
	"lbd/proxy/internal/sock"
	"lbd/proxy/internal/upstream"
)

// Fleet is where the proxy sees the replicas.
type Fleet interface {
	Snapshot() *balancer.Snapshot
	// Ready says whether every configured model has a healthy replica, and which
	// have not.
	Ready() (ok bool, missing []string)
}

// Health hears how attempts ended.
type Health interface {
	Report(r *balancer.Replica, o balancer.Outcome)
}

// Models is told when a replica does not know a model any more.
type Models interface {
	Relearn(replicaID string)
}

// Options are what a Server is made of. All fields are needed.
type Options struct {
	Config   Config
	Fleet    Fleet
	Health   Health
	Models   Models
	Metrics  *metrics.Metrics
	Gatherer prometheus.Gatherer
	Log      zerolog.Logger
	Version  string
}

// Server is the data plane behind one listener.
type Server struct {
	opt      Options
	cfg      atomic.Pointer[Config]
	http     *fasthttp.Server
	watch    *sock.Watch
	pools    *upstream.Pools
	ln       *sock.Listener
	served   chan error
	draining atomic.Bool
	stopped  atomic.Bool

	modelsPage atomic.Pointer[modelsPage]
	lastServed sync.Map // replica ID -> *atomic.Int64, Unix ns of the last success
	logged     atomic.Uint64
}

// New returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	w, err := sock.NewWatch()
	if err != nil {
		return nil, err
	}
	s := &Server{opt: o, watch: w, served: make(chan error, 1)}
	s.cfg.Store(&o.Config)
	s.pools = upstream.NewPools(s.poolConfig(&o.Config))
	s.http = &fasthttp.Server{
		Handler:                       s.handle,
		ErrorHandler:                  s.unreadable,
		NoDefaultServerHeader:         true,
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		HeaderReceived:                s.headerReceived,
		ReadBufferSize:                o.Config.MaxHeader,
		ReadTimeout:                   o.Config.ClientRead,
		IdleTimeout:                   o.Config.ClientIdle,
		CloseOnShutdown:               true,
		SecureErrorLogMessage:         true,
		Logger:                        httpLog{o.Log},
		// A goroutine whose connection ended waits this long for another one.
		MaxIdleWorkerDuration: 10 * time.Second,
	}
	return s, nil
}

func (s *Server) poolConfig(c *Config) upstream.Config {
	return upstream.Config{
		ConnectTimeout: c.Connect, IdleTimeout: c.UpstreamIdle, WriteTimeout: c.Silence, Watch: s.watch,
	}
}

// Start listens on addr and serves until Stop.
func (s *Server) Start(addr string) error {
	ln, err := sock.Listen(addr, s.watch, s.cfg.Load().ClientWrite)
	if err != nil {
		return err
	}
	s.ln = ln
	go func() { s.served <- s.http.Serve(ln) }()
	return nil
}

// Addr returns the address listened on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// SetConfig applies the limits that need no restart.
func (s *Server) SetConfig(c Config) {
	s.cfg.Store(&c)
	s.pools.SetConfig(s.poolConfig(&c))
}

// Forget closes the connections to replicas that have left the fleet.
func (s *Server) Forget(known func(id string) bool) {
	s.pools.Retain(known)
	s.lastServed.Range(func(k, _ any) bool {
		if !known(k.(string)) {
			s.lastServed.Delete(k)
		}
		return true
	})
}

// Draining makes /ready answer 503 from now on.
func (s *Server) Draining() { s.draining.Store(true) }

// Stop closes the listener, lets running requests finish until ctx ends, then
// closes what is left. Further calls return at once.
func (s *Server) Stop(ctx context.Context) error {
	if s.stopped.Swap(true) {
		return nil
	}
	s.Draining()
	var err error
	if s.ln != nil {
		err = s.drain(ctx)
	}
	s.pools.Close()
	if e := s.watch.Close(); err == nil {
		err = e
	}
	return err
}

func (s *Server) drain(ctx context.Context) error {
	err := s.http.ShutdownWithContext(ctx)
	s.ln.Close() // a fasthttp that is shut down before it serves would serve for ever
	served := <-s.served
	if err != nil && errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%d connections cut: %w", s.open(), err)
		s.watch.CloseAll()
		// Cut connections make their handlers return at once. A second Shutdown would
		// not wait for that: fasthttp has forgotten its listener.
		for end := time.Now().Add(5 * time.Second); s.open() > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	if err == nil {
		err = served
	}
	return err
}

// open returns the number of connections once fasthttp has stopped listening: it
// takes one off for the listener even then.
func (s *Server) open() int32 { return s.http.GetOpenConnectionsCount() + 1 }

// handle serves one request. A panic costs one request, not the process.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			ctx.Response.Reset()
			(&apiError{status: 500, kind: "server_error", code: "internal_error", message: "internal error in the load balancer"}).write(ctx)
			ctx.SetConnectionClose()
		}
	}()
	flushIfPipelined(ctx)
	s.route(ctx)
}

// panicked is for the deferred call that has recovered r.
func (s *Server) panicked(r any) {
	s.opt.Log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("BUG: request handler panicked")
}

// flushIfPipelined makes fasthttp send the answer at once although the client has
// sent more than this request: it would keep the end of it back until the next
// answer is there, which may take minutes. A write deadline of none is the one
// switch for that, and is not free. Chunks are counted without their framing, so
// connections that carried some are flushed for nothing.
func flushIfPipelined(ctx *fasthttp.RequestCtx) {
	c, h := ctx.Conn().(*sock.Conn), &ctx.Request.Header
	line := len(h.Method()) + len(" ") + len(h.RequestURI()) + len(" ") + len(h.Protocol()) + len("\r\n")
	c.Taken += int64(line + len(h.RawHeaders()) + len(ctx.Request.Body()))
	if c.Received() > c.Taken {
		ctx.SetWriteDeadline(time.Time{}) // fails on a closed connection only
	}
}

// headerReceived runs between head and body. fasthttp looks for Expect under
// that spelling only, since names are kept as they came.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if raw := h.RawHeaders(); bytes.Contains(raw, []byte("\nexpect:")) || bytes.HasPrefix(raw, []byte("expect:")) {
		h.Set("Expect", "100-continue")
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: s.cfg.Load().MaxBody}
}

// unreadable answers a request that fasthttp could not read. A reset is the end of
// a client, not a request: TCP health checks do nothing else.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if c, ok := ctx.Conn().(*sock.Conn); ok {
		c.LingerOnClose()
	}
	e := readError(ctx, err, s.cfg.Load())
	e.write(ctx)
	s.opt.Metrics.Model(metrics.Other).Answered(e.status)
}

func isType[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, fasthttp.ErrTimeout)
}

// httpLog keeps what fasthttp logs at debug: a line per broken client is noise.
type httpLog struct{ log zerolog.Logger }

func (l httpLog) Printf(format string, args ...any) {
	l.log.Debug().Str("component", "http").Msgf(format, args...)
}
