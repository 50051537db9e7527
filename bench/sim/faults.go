package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Fault is one misbehaviour and how long it lasts. Which fields a fault knows
// is in the table of Faults; the others must be zero. Path goes with Count.
type Fault struct {
	Count   int     `json:"count,omitempty"`   // requests it hits; 0 = all
	Path    string  `json:"path,omitempty"`    // only requests whose path begins so
	Seconds float64 `json:"seconds,omitempty"` // ends by itself after that; 0 = never
	Rate    float64 `json:"rate,omitempty"`    // share of requests hit, seeded; 0 = 1
	Events  int     `json:"events,omitempty"`  // SSE events sent before it strikes
	Factor  float64 `json:"factor,omitempty"`  // of step time
	Code    int     `json:"code,omitempty"`    // status, 500 to 599; 0 = 500
}

// Faults are the misbehaviours in force; nil is off. The tag "takes" names the
// fields a fault uses besides Seconds. "API calls" are the requests that carry
// a model; /sim/* never suffers.
type Faults struct {
	Refuse         *Fault `json:"refuse,omitempty" takes:""`                           // listener closed, live connections stay
	Hang           *Fault `json:"hang,omitempty" takes:"count rate"`                   // any path: accepted, never answered
	HangStream     *Fault `json:"hang_stream,omitempty" takes:"count rate events"`     // stream stalls after Events
	Slow           *Fault `json:"slow,omitempty" takes:"factor"`                       // steps take Factor times as long
	ResetBefore    *Fault `json:"reset_before,omitempty" takes:"count rate"`           // API call read, then RST
	ResetStream    *Fault `json:"reset_stream,omitempty" takes:"count rate events"`    // RST after Events
	TruncateStream *Fault `json:"truncate_stream,omitempty" takes:"count rate events"` // FIN after Events, no last chunk
	Status         *Fault `json:"status,omitempty" takes:"count rate code"`            // API calls answered Code
	StreamError    *Fault `json:"stream_error,omitempty" takes:"count rate events"`    // error event after Events, then [DONE]
	Unhealthy      *Fault `json:"unhealthy,omitempty" takes:""`                        // /health as with a dead engine, all else works
	Loading        *Fault `json:"loading,omitempty" takes:""`                          // API calls, /v1/models and /health 503
	StuckGauges    *Fault `json:"stuck_gauges,omitempty" takes:""`                     // gauges keep their values
	NoMetrics      *Fault `json:"no_metrics,omitempty" takes:"count rate"`             // /metrics 404
	BrokenMetrics  *Fault `json:"broken_metrics,omitempty" takes:"count rate"`         // /metrics is not an exposition
	NoLogStats     *Fault `json:"disable_log_stats,omitempty" takes:""`                // no vllm: families
	LostDone       *Fault `json:"lost_done,omitempty" takes:"count rate"`              // stream ends well, without [DONE]
	BadHead        *Fault `json:"bad_head,omitempty" takes:"count rate"`               // status line is not HTTP
	BadLength      *Fault `json:"bad_length,omitempty" takes:"count rate"`             // content-length too large
	BadChunks      *Fault `json:"bad_chunks,omitempty" takes:"count rate events"`      // chunk size is not hex
	CloseIdleNow   *Fault `json:"close_idle_now,omitempty" takes:""`                   // idle connections closed, once
}

// ParseFaults reads the JSON of POST /sim/faults.
func ParseFaults(b []byte) (Faults, error) {
	var f Faults
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Faults{}, fmt.Errorf("faults: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Faults{}, fmt.Errorf("faults: want one JSON object")
	}
	return f, f.validate()
}

// each calls fn for every fault in force.
func (f *Faults) each(fn func(name, takes string, slot **Fault)) {
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		slot := v.Field(i).Addr().Interface().(**Fault)
		if *slot == nil {
			continue
		}
		tag := v.Type().Field(i).Tag
		name, _, _ := strings.Cut(tag.Get("json"), ",")
		fn(name, tag.Get("takes"), slot)
	}
}

func (f Faults) validate() (err error) {
	f.each(func(name, takes string, slot **Fault) {
		if e := (*slot).validate(takes); e != nil && err == nil {
			err = fmt.Errorf("faults: %s.%w", name, e)
		}
	})
	return err
}

func (f Fault) validate(takes string) error {
	takes = " " + takes + " "
	given := []struct {
		name string
		set  bool
		ok   bool
		want string
		got  any
	}{
		{"count", f.Count != 0, f.Count > 0, "1 or more", f.Count},
		{"rate", f.Rate != 0, f.Rate > 0 && f.Rate <= 1, "more than 0, at most 1", f.Rate},
		{"events", f.Events != 0, f.Events > 0, "0 or more", f.Events},
		{"factor", f.Factor != 0, f.Factor > 0, "more than 0", f.Factor},
		{"code", f.Code != 0, f.Code >= 500 && f.Code <= 599, "500 to 599", f.Code},
	}
	for _, g := range given {
		switch {
		case g.set && !strings.Contains(takes, " "+g.name+" "):
			return fmt.Errorf("%s: not a field of this fault, want one of %q", g.name, strings.Fields(takes+"seconds"))
		case g.set && !g.ok:
			return fmt.Errorf("%s: %v, want %s", g.name, g.got, g.want)
		}
	}
	if f.Path != "" && !strings.Contains(takes, " count ") {
		return fmt.Errorf("path: not a field of this fault, want one of %q", strings.Fields(takes+"seconds"))
	}
	if f.Seconds < 0 {
		return fmt.Errorf("seconds: %v, want 0 or more", f.Seconds)
	}
	return nil
}

// faultSet holds the faults of a server and counts them down.
type faultSet struct {
	mu    sync.Mutex
	now   Faults
	since time.Time
	rng   *rand.Rand
}

func newFaultSet(seed uint64) *faultSet {
	return &faultSet{rng: rand.New(rand.NewPCG(seed, 0x6661756c74))}
}

func (s *faultSet) set(f Faults) {
	copied := Faults{}
	src, dst := reflect.ValueOf(f), reflect.ValueOf(&copied).Elem()
	for i := range src.NumField() {
		if p := src.Field(i).Interface().(*Fault); p != nil {
			c := *p
			dst.Field(i).Set(reflect.ValueOf(&c))
		}
	}
	copied.CloseIdleNow = nil // an act, not a state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.since = copied, time.Now()
}

// get returns a copy of what is in force, counts being what is left.
func (s *faultSet) get() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	out := s.now
	out.each(func(_, _ string, slot **Fault) {
		c := **slot
		*slot = &c
	})
	return out
}

// expire drops what is over; the caller holds the lock.
func (s *faultSet) expire() {
	elapsed := time.Since(s.since).Seconds()
	s.now.each(func(_, _ string, slot **Fault) {
		if d := (*slot).Seconds; d > 0 && elapsed >= d {
			*slot = nil
		}
	})
}

// on reports whether a fault that is a state is in force.
func (s *faultSet) on(pick func(*Faults) **Fault) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return *pick(&s.now) != nil
}

func (s *faultSet) slowdown() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if f := s.now.Slow; f != nil && f.Factor > 0 {
		return f.Factor
	}
	return 1
}

// strike takes one hit of the first of slots that is in force and lets rate
// decide; nil means the request is spared.
func (s *faultSet) strike(path string, pick ...func(*Faults) **Fault) *faultHit {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var hit *faultHit
	s.now.each(func(name, _ string, slot **Fault) {
		if hit != nil || !picked(&s.now, slot, pick) || !strings.HasPrefix(path, (*slot).Path) {
			return
		}
		f := *slot
		if f.Rate > 0 && s.rng.Float64() >= f.Rate {
			return
		}
		hit = &faultHit{name: name, fault: *f}
		if f.Count == 1 {
			*slot = nil
		} else if f.Count > 1 {
			f.Count--
		}
	})
	return hit
}

func picked(f *Faults, slot **Fault, pick []func(*Faults) **Fault) bool {
	for _, p := range pick {
		if p(f) == slot {
			return true
		}
	}
	return false
}

// faultHit is a fault one request suffers.
type faultHit struct {
	name  string
	fault Fault
}

func (h *faultHit) is(name string) bool { return h != nil && h.name == name }

const badLengthExtra = 64

// beforeEvent strikes a stream that has sent its share of events.
func (h *faultHit) beforeEvent(x *exchange) error {
	if h == nil || x.events < h.fault.Events {
		return nil
	}
	switch h.name {
	case "stream_error":
		return x.errorEvent(x.c.run.generationFailed())
	case "hang_stream":
		<-x.ctx.Done()
	case "reset_stream":
		x.cut = true
		x.c.reset()
	case "truncate_stream":
		x.cut = true
		x.c.nc.Close()
	case "bad_chunks":
		x.cut = true
		x.c.nc.Write([]byte("zz\r\ngarbage\r\n"))
		x.c.nc.Close()
	default:
		return nil
	}
	x.broken = true
	return errBroken
}

// code is the status a "status" fault answers with.
func (h *faultHit) code() int {
	if h.fault.Code == 0 {
		return 500
	}
	return h.fault.Code
}
