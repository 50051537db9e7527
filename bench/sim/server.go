package sim

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Server is one simulated replica. Its methods are safe for concurrent use.
type Server struct {
	faults *faultSet
	ledger ledger
	ids    *idSource
	nextID atomic.Uint64

	mu     sync.Mutex // start, stop, configuration; never held while serving
	cfg    Config
	addr   string // bound address, kept over Kill
	run    *run   // nil when stopped
	parked *port  // holds the address after Kill
}

// New checks the configuration. Nothing runs before Start.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	s := &Server{cfg: cfg, faults: newFaultSet(cfg.Seed), ids: newIDSource(cfg.Seed)}
	s.ledger.bodyLimit = cfg.RecordBodyBytes
	if _, err := newRun(s, cfg); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	return s, nil
}

// Start binds addr and serves. After Kill, the address of before is used again
// if addr is "" or the one first given.
func (s *Server) Start(addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start(addr)
}

func (s *Server) start(addr string) error {
	if s.run != nil {
		return errors.New("sim: already started")
	}
	if s.parked != nil {
		addr = s.addr
	}
	p, err := bindPort(addr)
	if err != nil {
		return fmt.Errorf("sim: listen on %q: %w", addr, err)
	}
	r, err := newRun(s, s.cfg)
	if err != nil {
		p.release()
		return fmt.Errorf("sim: %w", err)
	}
	s.addr = p.addr.String()
	if err := r.start(p); err != nil {
		return fmt.Errorf("sim: listen on %q: %w", addr, err)
	}
	s.unpark()
	s.run = r
	s.cfg.logf("%s serves %s as vLLM %s", s.addr, s.cfg.Model, s.cfg.Profile)
	return nil
}

// Addr is the bound address, also while it refuses connections.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// URL is the base URL.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Config returns the configuration in force, defaults filled in.
func (s *Server) Config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

// Stop ends as SIGTERM does with the default --shutdown-timeout 0: no new
// connections, running requests aborted. It joins every goroutine and frees
// the address; a second Stop does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.end(false)
		s.run = nil
		s.cfg.logf("%s stopped", s.addr)
	}
	s.unpark()
}

// Kill ends as SIGKILL does: every connection closed at once with RST where
// data is under way, the port refused. Start brings a fresh replica up on the
// same address; Stop gives the address up.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.run == nil {
		return
	}
	s.run.end(true)
	s.run = nil
	s.parked, _ = bindPort(s.addr) // best effort: the address may be lost to another process
	s.cfg.logf("%s killed", s.addr)
}

func (s *Server) unpark() {
	if s.parked != nil {
		s.parked.release()
		s.parked = nil
	}
}

// SetModel restarts the replica in place with other models, as an operator
// does who points a container at another checkpoint.
func (s *Server) SetModel(model string, aliases ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, running := s.cfg, s.run != nil
	s.cfg.Model, s.cfg.Aliases = model, aliases
	if old.Engine.Preset == presetName(old.Model) {
		s.cfg.Engine.Preset = presetName(model)
	}
	if !running {
		return nil
	}
	s.kill()
	return s.start("")
}

// Faults returns the faults in force; counts are what is left.
func (s *Server) Faults() Faults { return s.faults.get() }

// SetFaults replaces all faults. They outlive Kill and Start: they belong to
// the test, not to the replica.
func (s *Server) SetFaults(f Faults) error {
	if err := f.validate(); err != nil {
		return err
	}
	s.faults.set(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.applyFaults(f)
	}
	return nil
}

// KVTokens is the capacity of the replica's KV cache.
func (s *Server) KVTokens() int {
	r, err := newRun(s, s.Config())
	if err != nil {
		return 0
	}
	return r.eng.NumBlocks * r.eng.BlockSize
}
