package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Sampled is what lbd's /metrics said of its replicas, once a second. A value it
// did not give is null.
type Sampled struct {
	Source   string                  `json:"source"` // the URL
	At       []float64               `json:"at_ms"`  // times of the run
	Replicas map[string]*SampledLoad `json:"replicas"`
	// Failures counts the readings that failed; they are in no list.
	Failures int `json:"failures"`
}

// SampledLoad is one replica's values, one for each of Sampled.At.
type SampledLoad struct {
	Waiting  []*float64 `json:"waiting"`   // lbd_replica_requests_waiting
	Running  []*float64 `json:"running"`   // lbd_replica_requests_running
	KVCache  []*float64 `json:"kv_cache"`  // lbd_replica_kv_cache_usage
	InFlight []*float64 `json:"in_flight"` // lbd_inflight_requests, all models together
}

// sampledMetrics are the gauges read, in the order of a reading's values.
var sampledMetrics = []string{
	"lbd_replica_requests_waiting", "lbd_replica_requests_running", "lbd_replica_kv_cache_usage", "lbd_inflight_requests",
}

func (l *SampledLoad) lists() []*[]*float64 {
	return []*[]*float64{&l.Waiting, &l.Running, &l.KVCache, &l.InFlight}
}

// reading is the values of each replica, in the order of sampledMetrics.
type reading map[string][]*float64

// parseGauges reads the sampled gauges from a Prometheus text exposition.
func parseGauges(text []byte) reading {
	r := reading{}
	for line := range bytes.Lines(text) {
		name, labels, value, ok := splitSample(strings.TrimSpace(string(line)))
		replica, named := labels["replica"]
		if !ok || !named {
			continue
		}
		for i, metric := range sampledMetrics {
			if metric == name {
				r.add(replica, i, value)
			}
		}
	}
	return r
}

// add sums over the labels that are not looked at.
func (r reading) add(replica string, metric int, value float64) {
	values := r[replica]
	if values == nil {
		values = make([]*float64, len(sampledMetrics))
		r[replica] = values
	}
	if values[metric] != nil {
		value += *values[metric]
	}
	values[metric] = &value
}

// splitSample splits name{label="value",...} number.
func splitSample(line string) (name string, labels map[string]string, value float64, ok bool) {
	open := strings.IndexByte(line, '{')
	if open <= 0 || line[0] == '#' {
		return "", nil, 0, false
	}
	labels = map[string]string{}
	rest := line[open+1:]
	for !strings.HasPrefix(rest, "}") {
		label, after, found := strings.Cut(rest, "=")
		quoted, err := strconv.QuotedPrefix(after)
		if !found || err != nil {
			return "", nil, 0, false
		}
		// The escapes of the exposition (\\, \" and \n) are among Go's.
		if labels[label], err = strconv.Unquote(quoted); err != nil {
			return "", nil, 0, false
		}
		rest = strings.TrimPrefix(after[len(quoted):], ",")
	}
	number, _, _ := strings.Cut(strings.TrimSpace(rest[1:]), " ")
	value, err := strconv.ParseFloat(number, 64)
	return line[:open], labels, value, err == nil
}

// IsLbd tells whether the target's /metrics is lbd's, and its URL.
func IsLbd(ctx context.Context, targetURL string) (metricsURL string, ok bool) {
	t, err := parseTarget(targetURL)
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := t.base + "/metrics"
	transport := &http.Transport{DisableKeepAlives: true}
	text, err := readMetrics(ctx, transport, url)
	return url, err == nil && bytes.Contains(text, []byte("lbd_build_info"))
}

func readMetrics(ctx context.Context, transport *http.Transport, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	const most = 16 << 20
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && len(text) == most {
		err = errors.New("exposition longer than 16 MiB")
	}
	return text, err
}

// sampler reads the metrics at intervals. It belongs to one goroutine until that
// has ended.
type sampler struct {
	url       string
	transport *http.Transport
	out       Sampled
}

// startSampler starts the goroutine that reads; the function it returns ends it,
// waits for it, and hands over what it has.
func (r *Runner) startSampler(ctx context.Context) (stop func() *Sampled) {
	if r.o.MetricsURL == "" {
		return func() *Sampled { return nil }
	}
	s := &sampler{url: r.o.MetricsURL, transport: &http.Transport{IdleConnTimeout: r.o.IdleTimeout}}
	s.out = Sampled{Source: s.url, Replicas: map[string]*SampledLoad{}}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			s.sample(ctx, r.since)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() *Sampled {
		cancel()
		done.Wait()
		s.transport.CloseIdleConnections()
		return &s.out
	}
}

func (s *sampler) sample(ctx context.Context, now func() time.Duration) {
	bounded, cancel := context.WithTimeout(ctx, progressInterval)
	defer cancel()
	at := now()
	text, err := readMetrics(bounded, s.transport, s.url)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.out.Failures++
	default:
		s.out.add(at, parseGauges(text))
	}
}

// add appends a reading; replicas that were not in earlier ones get nulls there,
// those that are not in this one get them here.
func (s *Sampled) add(at time.Duration, r reading) {
	for replica := range r {
		if s.Replicas[replica] == nil && len(s.Replicas) < maxReplicas {
			l := &SampledLoad{}
			for _, list := range l.lists() {
				*list = make([]*float64, len(s.At))
			}
			s.Replicas[replica] = l
		}
	}
	s.At = append(s.At, millis(at))
	for replica, l := range s.Replicas {
		values := r[replica]
		for i, list := range l.lists() {
			var v *float64
			if values != nil {
				v = values[i]
			}
			*list = append(*list, v)
		}
	}
}
