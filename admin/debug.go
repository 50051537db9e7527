package admin

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// debugTable lists what is under /debug/. The import of net/http/pprof puts the
// same pages on http.DefaultServeMux, which nothing in lbd serves.
func (s *Server) debugTable() []route {
	get := func(h http.HandlerFunc) http.Handler { return methods{"GET": h} }
	return []route{
		{"/debug/{$}", "", get(s.debugPage)},
		{"/debug/vars", "GET   runtime facts", get(s.varsPage)},
		{"/debug/pprof/", "GET   profiles of this process", get(pprof.Index)},
		{"/debug/pprof/profile", "GET   CPU profile; ?seconds=30", get(pprof.Profile)},
		{"/debug/pprof/mutex", "GET   waits for locks; ?seconds=30", get(mutexSampling.during(pprof.Handler("mutex")))},
		{"/debug/pprof/block", "GET   waits of goroutines; ?seconds=30", get(blockSampling.during(pprof.Handler("block")))},
		{"/debug/pprof/trace", "GET   execution trace; ?seconds=1", get(pprof.Trace)},
		{"/debug/pprof/symbol", "", methods{"GET": pprof.Symbol, "POST": pprof.Symbol}},
		{"/debug/pprof/cmdline", "", get(noCommandLine)},
	}
}

// sampling is what the runtime records only when told to, since every wait then costs
// a stack trace: it is on while somebody takes the profile.
type sampling struct {
	set   func(on bool)
	mu    sync.Mutex
	users int
}

var (
	mutexSampling = &sampling{set: func(on bool) { runtime.SetMutexProfileFraction(one(on)) }}
	blockSampling = &sampling{set: func(on bool) { runtime.SetBlockProfileRate(one(on)) }}
)

// one is the rate at which every event is recorded, 0 that of none.
func one(on bool) int {
	if on {
		return 1
	}
	return 0
}

// during serves a profile of the seconds asked for, 30 when nothing is said, as the
// CPU profile is. As text, which the index links to, it is everything that was sampled
// so far: net/http/pprof refuses debug with seconds.
func (p *sampling) during(h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if text := q.Get("debug") != "" && q.Get("debug") != "0"; !text && q.Get("seconds") == "" {
			q.Set("seconds", "30")
			r.URL.RawQuery, r.Form = q.Encode(), nil
		}
		p.use(1)
		defer p.use(-1)
		h.ServeHTTP(w, r)
	}
}

func (p *sampling) use(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users += n
	p.set(p.users > 0)
}

// noCommandLine: --replica-api-key is a flag, and /config redacts it.
func noCommandLine(w http.ResponseWriter, _ *http.Request) {
	notFound("not_shown", "the command line may hold secrets; GET /config shows the configuration").write(w)
}

type varsView struct {
	Version       string    `json:"version"`
	Go            string    `json:"go"`
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds int64     `json:"uptime_seconds"`
	CPUs          int       `json:"cpus"`
	MaxProcs      int       `json:"gomaxprocs"`
	Goroutines    uint64    `json:"goroutines"`
	HeapBytes     uint64    `json:"heap_bytes"`
	TotalBytes    uint64    `json:"total_bytes"`
	GCCycles      uint64    `json:"gc_cycles"`
	MemoryLimit   int64     `json:"memory_limit_bytes"`
}

// varsPage reads runtime/metrics, which unlike runtime.ReadMemStats does not stop
// the world.
func (s *Server) varsPage(w http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	writeJSON(w, http.StatusOK, varsView{
		Version: s.opt.Version, Go: runtime.Version(), StartedAt: s.began, UptimeSeconds: int64(time.Since(s.began).Seconds()),
		CPUs: runtime.NumCPU(), MaxProcs: runtime.GOMAXPROCS(0), Goroutines: samples[0].Value.Uint64(),
		HeapBytes: samples[1].Value.Uint64(), TotalBytes: samples[2].Value.Uint64(), GCCycles: samples[3].Value.Uint64(),
		MemoryLimit: debug.SetMemoryLimit(-1), // negative only reads it
	})
}
