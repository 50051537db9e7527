package admin

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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
		{"/debug/pprof/trace", "GET   execution trace; ?seconds=1", get(pprof.Trace)},
		{"/debug/pprof/symbol", "", methods{"GET": pprof.Symbol, "POST": pprof.Symbol}},
		{"/debug/pprof/cmdline", "", get(noCommandLine)},
	}
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
