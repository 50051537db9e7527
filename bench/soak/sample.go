//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sample is what is known of lbd at one second.
type sample struct {
	At          float64 `json:"at_seconds"`
	RSS         int64   `json:"rss_bytes"`
	Heap        int64   `json:"heap_inuse_bytes"`
	Goroutines  int     `json:"goroutines"`
	Descriptors int     `json:"descriptors"`
	OwnLoad     int     `json:"own_load"`
	Requests    int64   `json:"requests"` // ended since the start
	Errors      int64   `json:"errors"`   // of these
}

// page is a read /metrics page.
type page struct {
	text map[string]string  // series without labels
	sum  map[string]float64 // families, over their labels
}

// metrics reads lbd's own metrics from the admin listener.
func (r *rig) metrics() (page, error) {
	code, body, err := r.get("http://" + r.admin + "/metrics")
	if err != nil {
		return page{}, err
	}
	if code != 200 {
		return page{}, fmt.Errorf("/metrics answers %d", code)
	}
	return readPage(body), nil
}

func readPage(body string) page {
	p := page{text: make(map[string]string), sum: make(map[string]float64)}
	for line := range strings.Lines(body) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndexByte(line, '}'); i >= 0 {
			name, value, ok = line[:i+1], strings.TrimSpace(line[i+1:]), true
		}
		v, err := strconv.ParseFloat(value, 64)
		if !ok || strings.HasPrefix(line, "#") || err != nil {
			continue
		}
		family, _, labelled := strings.Cut(name, "{")
		if !labelled {
			p.text[name] = value
		}
		p.sum[family] += v
	}
	return p
}

// usesStrategy tells whether every model of a /fleet page but the pinned one has a
// strategy.
func usesStrategy(body, strategy string) bool {
	var f struct {
		Models []struct{ Name, Strategy string }
	}
	if err := json.Unmarshal([]byte(body), &f); err != nil || len(f.Models) == 0 {
		return false
	}
	for _, m := range f.Models {
		if m.Strategy != strategy && m.Name != pinned {
			return false
		}
	}
	return true
}

// look takes a sample; what cannot be read fails it as a whole.
func (r *rig) look() (s sample, err error) {
	m, err := r.metrics()
	if err != nil {
		return s, err
	}
	pid := r.lbd.cmd.Process.Pid
	s.RSS, err = rss(pid)
	s.Heap = int64(m.sum["go_memstats_heap_inuse_bytes"])
	s.Goroutines = int(m.sum["go_goroutines"])
	s.OwnLoad = int(m.sum["lbd_inflight_requests"])
	s.Descriptors = descriptors(pid)
	return s, err
}

// rss is the resident memory of a process, in bytes.
func rss(pid int) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("VmRSS:"))
	f := strings.Fields(string(rest[:min(len(rest), 64)]))
	if len(f) == 0 {
		return 0, fmt.Errorf("no VmRSS of process %d", pid)
	}
	kib, err := strconv.ParseInt(f[0], 10, 64)
	return kib << 10, err
}

// base is lbd in front of a fleet that is well, without clients: the most of a few
// seconds, since polls and probes come and go.
func (r *rig) base(ctx context.Context) (b sample, err error) {
	for range 5 {
		s, err := r.look()
		if err != nil {
			return b, err
		}
		b.RSS, b.Heap = max(b.RSS, s.RSS), max(b.Heap, s.Heap)
		b.Goroutines, b.Descriptors, b.OwnLoad = max(b.Goroutines, s.Goroutines), max(b.Descriptors, s.Descriptors), max(b.OwnLoad, s.OwnLoad)
		if !sleep(ctx, 500*time.Millisecond) {
			return b, ctx.Err()
		}
	}
	return b, nil
}

// settle waits until lbd is as it was before the clients came, and says what is not
// when patience ends.
func (r *rig) settle(ctx context.Context, patience time.Duration, base sample) (end sample, left []string) {
	if err := r.reload(ctx, "the first file", r.serving); err != nil {
		return end, []string{err.Error()}
	}
	r.until(ctx, patience, func() bool {
		s, err := r.look()
		if err != nil {
			left = []string{err.Error()}
			return false
		}
		end, left = s, uneven(s, base)
		left = append(left, r.held()...)
		return len(left) == 0
	})
	return end, left
}

// held names the replicas that still work on a request.
func (r *rig) held() (left []string) {
	for _, s := range r.slots {
		_, body, err := r.get("http://" + s.addr + "/sim/stats")
		var stats struct {
			InFlight *int `json:"in_flight"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(body), &stats)
		}
		switch {
		case err != nil:
			left = append(left, fmt.Sprintf("replica %s: %v", s.addr, err))
		case stats.InFlight == nil || *stats.InFlight != 0:
			left = append(left, fmt.Sprintf("replica %s still works: %s", s.addr, body))
		}
	}
	return left
}
