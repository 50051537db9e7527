package sim

import (
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lbd/bench/sim/engine"
)

// Stats are what tests assert on. All but Engine, InFlight and Connections
// count over the life of the Server, restarts included.
type Stats struct {
	Engine engine.Stats `json:"engine"` // of this run

	Received int64 `json:"received"` // API calls read, whatever became of them
	Started  int64 `json:"started"`  // of these, handed to the engine
	Finished int64 `json:"finished"` // of these, answered to the end
	Aborted  int64 `json:"aborted"`  // of these, ended because the client left
	Lost     int64 `json:"lost"`     // of these, cut off by a fault, Stop or Kill
	Rejected int64 `json:"rejected"` // API calls answered 4xx
	Refused  int64 `json:"refused"`  // API calls there was no room for
	Faulted  int64 `json:"faulted"`  // requests a fault struck

	InFlight    int64 `json:"in_flight"`   // started and not ended
	Accepted    int64 `json:"accepted"`    // connections ever
	Connections int   `json:"connections"` // open now

	ByPath map[string]int64 `json:"by_path"` // requests read, per path
}

// RecordedRequest is what the replica saw of one request.
type RecordedRequest struct {
	Time      time.Time
	Method    string
	Path      string // with the query
	Header    http.Header
	RequestID string // x-request-id
	Body      []byte // at most Config.RecordBodyBytes
	BodyBytes int
	Remote    string // the client's address
	Refused   bool   // there was no room for it
}

// recorded bounds the log of requests; /health, /metrics and /sim do not
// enter it.
const recorded = 1024

// ledger counts and records for a Server.
type ledger struct {
	received, started, finished, aborted, lost, rejected, refused, faulted, accepted atomic.Int64

	bodyLimit int
	mu        sync.Mutex
	byPath    map[string]int64
	log       []*RecordedRequest // ring
	next      int
}

// maxPaths bounds ByPath; what comes later counts as "other".
const maxPaths = 256

func (l *ledger) record(x *exchange, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byPath == nil {
		l.byPath = make(map[string]int64)
	}
	path := x.path
	if _, ok := l.byPath[path]; !ok && len(l.byPath) >= maxPaths {
		path = "other"
	}
	l.byPath[path]++
	if !keep {
		return
	}
	body := x.body
	if len(body) > l.bodyLimit {
		body = slices.Clone(body[:l.bodyLimit]) // lets the rest of a large body go
	}
	rec := &RecordedRequest{
		Time: time.Now(), Method: x.req.Method, Path: x.req.RequestURI, Header: x.req.Header,
		RequestID: x.req.Header.Get("X-Request-Id"), Body: body, BodyBytes: len(x.body),
		Remote: x.c.nc.RemoteAddr().String(),
	}
	x.record = rec
	if len(l.log) < recorded {
		l.log = append(l.log, rec)
		return
	}
	l.log[l.next] = rec
	l.next = (l.next + 1) % recorded
}

// refuse notes that there was no room for a request that was recorded.
func (l *ledger) refuse(x *exchange) {
	l.refused.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	x.record.Refused = true
}

// Requests returns the last requests, oldest first.
func (s *Server) Requests() []RecordedRequest {
	l := &s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]RecordedRequest, 0, len(l.log))
	for i := range l.log {
		all = append(all, *l.log[(l.next+i)%len(l.log)])
	}
	return all
}

// Stats returns the counters now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	return s.statsDuring(r)
}

// statsDuring takes the engine's part from r. It does not need the server's
// lock, which Stop holds while it waits for handlers.
func (s *Server) statsDuring(r *run) Stats {
	l := &s.ledger
	st := Stats{
		Received: l.received.Load(), Finished: l.finished.Load(), Aborted: l.aborted.Load(), Lost: l.lost.Load(),
		Rejected: l.rejected.Load(), Refused: l.refused.Load(), Faulted: l.faulted.Load(), Accepted: l.accepted.Load(),
	}
	st.Started = l.started.Load() // after those that follow it, so InFlight is never negative
	l.mu.Lock()
	st.ByPath = maps.Clone(l.byPath)
	l.mu.Unlock()
	st.InFlight = st.Started - st.Finished - st.Aborted - st.Lost
	if r != nil {
		st.Engine = r.driver.engineStats()
		r.mu.Lock()
		st.Connections = len(r.conns)
		r.mu.Unlock()
	}
	return st
}

// idSource makes vLLM's random_uuid: 32 hex digits, seeded.
type idSource struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newIDSource(seed uint64) *idSource {
	return &idSource{rng: rand.New(rand.NewPCG(seed, 0x75756964))}
}

func (s *idSource) uuid() string {
	s.mu.Lock()
	a, b := s.rng.Uint64(), s.rng.Uint64()
	s.mu.Unlock()
	var raw [16]byte
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // version 4
	return hex.EncodeToString(raw[:])
}

// uniform is in [0, 1).
func (s *idSource) uniform() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Float64()
}
