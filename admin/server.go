package admin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"lbd/balancer"
)

// Fleet is what is shown and drained.
type Fleet interface {
	Snapshot() *balancer.Snapshot
	Drain(id string) error
	Undrain(id string) error
}

// Reloaded names the keys that a reload has changed and those that wait for a restart.
type Reloaded struct {
	Applied      []string `json:"applied,omitempty"`
	NeedsRestart []string `json:"needs_restart,omitempty"`
}

// Options are the seams of a Server. Only Fleet is required; pages whose source
// is nil are not there.
type Options struct {
	Fleet Fleet
	// Explain is a dry run of the data plane. The model is not nil once it is
	// known; the replica is nil with every error. An error that has the method
	// Status() int is answered with it, and with its Code() and Type() string and,
	// where it has one, Param() string.
	Explain func(head http.Header, body []byte) (balancer.Decision, error)
	// Held tells of the requests that are held back in front of a model.
	Held func(model string) Held
	// Config returns what marshals to the configuration in effect, redacted.
	Config func() any
	// Reload returns what of the new configuration is in force, or why it was refused.
	Reload func() (Reloaded, error)
	// Metrics serves lbd's own metrics.
	Metrics http.Handler
	Version string
	// ReplicaAPIKey is sent to replicas as a bearer token, unless empty.
	ReplicaAPIKey string
	// MaxPickBody bounds the body of POST /pick, in bytes; 0 is 64 MiB, the main
	// listener's default. SetMaxPickBody replaces it.
	MaxPickBody int64
	// Hosts are further names that clients may use for this listener.
	Hosts []string
	// Token is asked for as "Authorization: Bearer TOKEN", unless empty.
	Token string
	// TLS is spoken, unless nil. It may want certificates of operators.
	TLS *tls.Config
	// ReplicaKey returns the value of Authorization for one replica and beats
	// ReplicaAPIKey, unless it is empty; nil = none.
	ReplicaKey func(listed string) string
	// Dial connects to replicas, so that control calls go where requests go although a
	// name has several addresses, or is not to be looked up now; nil = as the system does.
	// DialTLS is for those with an https URL; nil = with the system's authorities.
	Dial, DialTLS func(ctx context.Context, network, addr string) (net.Conn, error)
	Log           zerolog.Logger
}

// ErrExposed is returned by Start and SetToken when other machines would get in
// without proof of who they are.
var ErrExposed = errors.New("the admin listener is reachable from other machines; want admin_token or admin_tls_client_ca_file, or listen on 127.0.0.1")

// A request is read within these, its body included, whether a page wants it or
// not; net/http lifts the limit with the last byte. Nothing limits the answer,
// since sleep and profiles take minutes.
const (
	headTimeout = 10 * time.Second
	readTimeout = time.Minute
	idleTimeout = 2 * time.Minute
	maxHead     = 64 << 10 // bytes
)

// Server is the admin listener.
type Server struct {
	opt    Options
	began  time.Time
	apiKey atomic.Pointer[string]
	token  atomic.Pointer[digest] // nil = none is asked for
	picks  atomic.Int64           // the largest body of POST /pick
	client *http.Client
	http   *http.Server
	routes []route

	cancel   context.CancelFunc // ends every request
	stop     sync.Once
	stopErr  error
	served   chan struct{} // closed when Serve has returned
	handlers sync.WaitGroup

	mu       sync.Mutex // guards the rest, and joining handlers
	exposed  bool       // other machines can connect
	listener net.Listener
	stopped  bool
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Fleet == nil {
		panic("BUG: admin.New without Fleet")
	}
	s := &Server{opt: o, began: time.Now(), client: newClient(o.Dial, o.DialTLS), served: make(chan struct{})}
	s.SetReplicaAPIKey(o.ReplicaAPIKey)
	s.SetMaxPickBody(cmp.Or(o.MaxPickBody, 64<<20))
	s.token.Store(digestOf(o.Token))
	s.routes = s.table()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.http = &http.Server{
		ReadHeaderTimeout: headTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(logWriter{&s.opt.Log}, "", 0), // the type net/http wants
	}
	return s
}

// logWriter takes what net/http has to say: panics of handlers, failed accepts.
type logWriter struct{ log *zerolog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Error().Str("detail", string(p)).Msg("admin listener")
	return len(p), nil
}

// SetReplicaAPIKey replaces the bearer token for calls that begin from now on.
func (s *Server) SetReplicaAPIKey(key string) { s.apiKey.Store(&key) }

// SetMaxPickBody replaces the limit for bodies of POST /pick that are read from now on.
func (s *Server) SetMaxPickBody(bytes int64) { s.picks.Store(bytes) }

// Start listens on addr, host:port, and serves until Stop.
func (s *Server) Start(addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.startable(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.begin(ln, addr)
}

// StartOn is Start for a socket that listens already on addr, which Stop closes.
func (s *Server) StartOn(ln net.Listener, addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.startable(); err != nil {
		ln.Close()
		return err
	}
	return s.begin(ln, addr)
}

func (s *Server) startable() error {
	switch {
	case s.stopped:
		return errors.New("the admin listener was stopped; want a new one")
	case s.listener != nil:
		return errors.New("the admin listener was started before")
	}
	return nil
}

// begin serves unless others could get in without proof.
func (s *Server) begin(ln net.Listener, addr string) error {
	a, ok := ln.Addr().(*net.TCPAddr)
	s.exposed = ok && !a.IP.IsLoopback()
	if s.exposed && s.token.Load() == nil && !s.wantsCertificates() {
		ln.Close()
		return ErrExposed
	}
	if s.exposed && s.opt.TLS == nil {
		s.opt.Log.Warn().Stringer("address", a).Msg("the admin listener's token travels in plain text; want admin_tls_cert_file and admin_tls_key_file")
	}
	if s.opt.TLS != nil {
		ln = tls.NewListener(ln, s.opt.TLS)
	}
	s.start(ln, addr)
	return nil
}

// wantsCertificates says that operators prove who they are by a certificate.
func (s *Server) wantsCertificates() bool {
	return s.opt.TLS != nil && s.opt.TLS.ClientAuth == tls.RequireAndVerifyClientCert
}

func (s *Server) start(ln net.Listener, addr string) {
	s.listener = ln
	s.http.Handler = s.joined(newGuard(addr, s.opt.Hosts).wrap(s.authenticated(s.mux())))
	go s.serve(ln)
}

func (s *Server) serve(ln net.Listener) {
	defer close(s.served)
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		s.opt.Log.Error().Err(err).Msg("admin listener failed")
	}
}

// Addr returns the address listened on, nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Stop takes no more requests, lets those that run finish until ctx ends, then
// cuts them and the calls they make, and waits for them. The error is that of
// ctx if something was cut. Further calls return the same.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() { s.stopErr = s.shutDown(ctx) })
	return s.stopErr
}

func (s *Server) shutDown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	started := s.listener != nil
	s.mu.Unlock()
	defer s.cancel()
	if !started {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.cancel()
	s.handlers.Wait()
	<-s.served
	return err
}

// joined makes Stop wait for handlers, which neither Shutdown nor Close of
// http.Server does once connections are cut.
func (s *Server) joined(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			w.Header().Set("Connection", "close")
			unavailable("stopping", "lbd is stopping").write(w)
			return
		}
		defer s.handlers.Done()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.handlers.Add(1)
	}
	return !s.stopped
}
