package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"lbd/access/keys"
	"lbd/access/outward"
	"lbd/admission"
	"lbd/affinity"
	"lbd/balancer"
	"lbd/balancer/prefix"
	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/sock"
	"lbd/proxy/internal/upstream"
)

// Fleet is where the proxy sees the replicas.
type Fleet interface {
	Snapshot() *balancer.Snapshot
	// Ready says whether every configured model has a healthy replica, and which
	// have not.
	Ready() (ok bool, missing []string)
	// Settled says whether every replica was asked for its health and its models.
	Settled() bool
}

// Health hears how attempts ended.
type Health interface {
	Report(r *balancer.Replica, o balancer.Outcome)
	// Retract takes back a balancer.Answered: that answer did not come to its end.
	Retract(r *balancer.Replica)
	// Finished tells that an answer has come to its end.
	Finished(r *balancer.Replica)
	// LastResort returns those of the replicas, which are out of service, that are
	// likeliest to answer; none where asking would only take time.
	LastResort(rs []*balancer.Replica) []*balancer.Replica
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

	// Lines takes the lines of requests on their way to where Log writes; nil = requests
	// write to Log.
	Lines Lines
	// Keys says who may call; nil = everybody.
	Keys *keys.Keys
	// Affinity keeps sessions and responses where their state is; nil = it does not.
	// Its pickers are the fleet's business.
	Affinity *affinity.Homes
	// Prefixes hashes prompts for the access log; nil = an index of its own.
	Prefixes *prefix.Index
	// Outward says what replicas are shown; nil = nothing of lbd's own.
	Outward *outward.Outward
	// TLS is spoken to clients; nil = plain HTTP.
	TLS *tls.Config
	// Names knows what the names of replicas stand for; nil = the system is asked for
	// each connection.
	Names upstream.Names
}

// Server is the data plane behind one listener.
type Server struct {
	opt    Options
	cfg    atomic.Pointer[Config]
	in     *inbound.Server
	watch  *sock.Watch
	pools  *upstream.Pools
	ln     *sock.Listener
	served chan error
	crowd  crowd

	admission *admission.Admission
	made      time.Time   // when New made it
	known     atomic.Bool // settled has been true
	draining  atomic.Bool
	stopped   atomic.Bool

	modelsPage atomic.Pointer[modelsPage]
	lastServed sync.Map // replica ID -> *atomic.Int64, when the last success was sent, in ns since made; 0 = none
	logged     atomic.Uint64
	lines      zerolog.Logger // of requests
}

// New returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	w, err := sock.NewWatch()
	if err != nil {
		return nil, err
	}
	if o.Keys == nil {
		o.Keys = keys.New()
	}
	if o.Prefixes == nil {
		o.Prefixes = prefix.New(prefix.Config{})
	}
	if o.Outward == nil {
		if o.Outward, err = outward.New(outward.Config{}); err != nil {
			return nil, err
		}
	}
	o.Config = o.Config.filled()
	s := &Server{opt: o, watch: w, served: make(chan error, 1), made: time.Now()}
	s.cfg.Store(&o.Config)
	if s.lines = o.Log; o.Lines != nil {
		s.lines = o.Log.Output(putter{o.Lines})
	}
	s.admission = admission.New(o.Config.Admission.Config, o.Fleet.Snapshot)
	s.pools = upstream.NewPools(s.poolConfig(&o.Config))
	s.pools.TLS = o.Outward.TLS
	s.in = inbound.NewServer(s, limits(&o.Config))
	s.in.TLS = o.TLS
	return s, nil
}

func limits(c *Config) inbound.Limits {
	return inbound.Limits{Head: c.MaxHeader, Body: c.MaxBody, Read: c.ClientRead, Idle: c.ClientIdle}
}

func (s *Server) poolConfig(c *Config) upstream.Config {
	return upstream.Config{
		ConnectTimeout: c.Connect, IdleTimeout: c.UpstreamIdle, WriteTimeout: c.Silence, Watch: s.watch,
		Names: s.opt.Names,
	}
}

// Addr returns the address listened on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// SetConfig applies the limits that need no restart.
func (s *Server) SetConfig(c Config) {
	c = c.filled()
	s.cfg.Store(&c)
	s.admission.SetConfig(c.Admission.Config)
	s.in.SetLimits(limits(&c))
	s.setConnections(&c)
	s.pools.SetConfig(s.poolConfig(&c))
}

// SetMaxConnections changes Connections.Max alone. It is for who calls SetConfig.
func (s *Server) SetMaxConnections(n int) {
	c := *s.cfg.Load()
	c.Connections.Max = n
	s.cfg.Store(&c)
	s.setConnections(&c)
}

// Forget closes the connections to replicas that have left the fleet.
func (s *Server) Forget(known func(id string) bool) {
	s.pools.Retain(known)
	s.admission.Retain()
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
	err := s.drain(ctx)
	s.admission.Close()
	s.pools.Close()
	if e := s.watch.Close(); err == nil {
		err = e
	}
	return err
}

func (s *Server) drain(ctx context.Context) error {
	err := s.in.Shutdown(ctx)
	if err != nil {
		s.watch.CloseAll()
		// Cut connections make their handlers return at once.
		late, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.in.Shutdown(late)
	}
	if s.ln == nil {
		return err
	}
	if served := <-s.served; err == nil {
		err = served
	}
	return err
}

// Serve implements inbound.Handler. A panic costs one request, not the process.
func (s *Server) Serve(c *inbound.Conn) (keep bool) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r, nil)
			keep = false
			s.own(c, false, internalError.write)
		}
	}()
	return s.route(c)
}

var errPanicked = errors.New("panicked")

var internalError = &apiError{status: 500, kind: "server_error", code: "internal_error", message: "internal error in the load balancer"}

// panicked is for the deferred call that has recovered r. id is the request's, if it has one.
func (s *Server) panicked(r any, id []byte) {
	stack := debug.Stack()
	switch p := r.(type) {
	case *sock.Panicked:
		r, stack = p.Value, p.Stack
	case *admission.Panicked: // while somebody else had it placed
		r, stack = p.Value, p.Stack
	}
	line := s.opt.Log.Error().Str("panic", tellable(r)).Bytes("stack", stack)
	if id != nil {
		line.Bytes("request_id", id)
	}
	line.Msg("BUG: request handler panicked")
}

// tellable is what a log may hold of a panic's value: what the runtime, or lbd of its
// own mistakes, says. Another value may hold a request's bytes.
func tellable(r any) string {
	switch v := r.(type) {
	case runtime.Error:
		return v.Error()
	case string:
		if strings.HasPrefix(v, "BUG: ") {
			return v
		}
	}
	return fmt.Sprintf("%T", r)
}

// Refuse implements inbound.Handler.
func (s *Server) Refuse(c *inbound.Conn, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r, nil)
		}
	}()
	c.LingerOnClose()
	e := readError(err, s.cfg.Load())
	if e.code == malformed { // what stands where its fields should is not to be repeated
		e.id = newRequestID(new([32]byte))
	} else {
		e.id = requestID(c.Request())
	}
	if e.status == 401 {
		s.logRefused(c, e)
	}
	s.own(c, false, e.write)
	s.opt.Metrics.Model(metrics.Other).Answered(e.status)
}
