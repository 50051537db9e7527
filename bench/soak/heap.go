//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// heap is Go's memory right after a garbage collection.
type heap struct {
	Live     int64 `json:"live_bytes"` // what is reachable: HeapAlloc
	Objects  int64 `json:"live_objects"`
	Spans    int64 `json:"spans_bytes"`    // pages that hold something: HeapInuse
	Idle     int64 `json:"idle_bytes"`     // pages that hold nothing and are still resident
	Released int64 `json:"released_bytes"` // pages given back
	Stacks   int64 `json:"stacks_bytes"`
	// Sites are what lives by who allocated it, estimated from a sample of one
	// allocation in 512 KiB (runtime.MemProfileRate).
	Sites map[string]int64 `json:"sites_bytes,omitempty"`
}

// collections are how many in a row leave only what is reachable: what is put into a
// sync.Pool lives through one and is gone after the next (poolCleanup in
// sync/pool.go); what a cleanup or a weak pointer held is let go of by a third.
//
// The least of some more is what stays: polls and probes go on, every 250 ms to each
// replica, and one that is under way holds a page of metrics.
const (
	collections = 3
	looks       = 12
)

// heap has lbd collect its garbage and says what is left.
func (r *rig) heap(ctx context.Context) (least heap, err error) {
	for n := range collections + looks {
		code, page, err := r.get("http://" + r.admin + "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return least, err
		}
		if code != 200 {
			return least, fmt.Errorf("/debug/pprof/heap answers %d", code)
		}
		h, err := readHeap(page)
		if err != nil {
			return least, err
		}
		if n == collections || n > collections && h.Live < least.Live {
			least = h
		}
		// No multiple of the polls' interval: they would be met at the same place.
		sleep(ctx, 70*time.Millisecond)
	}
	return least, nil
}

// readHeap reads a heap profile in text (runtime/pprof, debug=1): records with their
// stacks, then runtime.MemStats.
func readHeap(page string) (h heap, err error) {
	h.Sites = make(map[string]int64)
	stats := make(map[string]int64)
	rate, bytes, site := 1.0, int64(0), ""
	note := func() {
		if bytes > 0 {
			h.Sites[cmp.Or(site, "unknown")] += bytes
		}
		bytes, site = 0, ""
	}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		name, value, isStat := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		frame := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "heap profile:"):
			rate = sampleRate(line)
		case strings.HasPrefix(line, "# ") && isStat:
			stats[name], _ = strconv.ParseInt(strings.Fields(value + " x")[0], 10, 64) // lists are not wanted
		case strings.HasPrefix(line, "#") && len(frame) > 2:
			site = nearer(site, frame[2])
		case strings.Contains(line, " @ "):
			note()
			bytes = inUse(line, rate)
		}
	}
	note()
	h.Live, h.Objects, h.Spans, h.Released = stats["HeapAlloc"], stats["HeapObjects"], stats["HeapInuse"], stats["HeapReleased"]
	h.Idle, h.Stacks = stats["HeapIdle"]-h.Released, stats["Stack"]
	if h.Live == 0 {
		return h, fmt.Errorf("no HeapAlloc in a heap profile of %d bytes", len(page))
	}
	return h, nil
}

// sampleRate is the mean distance of two samples, in bytes, of a line that ends in
// "@ heap/1048576": there it is doubled (writeHeapInternal in runtime/pprof).
func sampleRate(line string) float64 {
	_, text, _ := strings.Cut(line, "@ heap/")
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 1
	}
	return max(1, n/2)
}

// inUse is what a record "3: 240 [5: 400] @ 0x1 0x2" stands for. An allocation of s
// bytes is sampled with a chance of 1-exp(-s/rate) (scaleHeapSample in
// runtime/pprof/protomem.go).
func inUse(line string, rate float64) int64 {
	var n, bytes int64
	if _, err := fmt.Sscanf(line, "%d: %d [", &n, &bytes); err != nil || n == 0 {
		return 0
	}
	size := float64(bytes) / float64(n)
	return int64(float64(bytes) / (1 - math.Exp(-size/rate)))
}

// nearer is the function to name of a stack that is read from its innermost frame on:
// the first of lbd, else the first.
func nearer(site, function string) string {
	function = function[:max(0, strings.LastIndexByte(function, '+'))]
	if site == "" || !strings.HasPrefix(site, "lbd/") && strings.HasPrefix(function, "lbd/") {
		return function
	}
	return site
}

// grownSites are who has more than before, most first.
func grownSites(before, after heap) (out []string) {
	more := make(map[string]int64)
	for site, n := range after.Sites {
		if d := n - before.Sites[site]; d > 0 {
			more[site] = d
		}
	}
	sites := slices.SortedFunc(maps.Keys(more), func(a, b string) int { return cmp.Or(cmp.Compare(more[b], more[a]), cmp.Compare(a, b)) })
	for _, s := range sites[:min(len(sites), 5)] {
		out = append(out, fmt.Sprintf("%s %+.1f MiB", s, mib(more[s])))
	}
	return out
}
