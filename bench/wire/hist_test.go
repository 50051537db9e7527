//go:build linux

package main

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A quantile is within 1/64 of the exact one.
func TestHistQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h hist
	var all []int64
	for range 100_000 {
		v := int64(rng.ExpFloat64() * 1e6)
		all = append(all, v)
		h.add(v)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999} {
		want := all[int(q*float64(len(all)))]
		if got := h.quantile(q); got < want-want/32-1 || got > want+want/32+1 {
			t.Errorf("quantile %v = %d; want %d", q, got, want)
		}
	}
	if h.quantile(1) != all[len(all)-1] {
		t.Errorf("quantile 1 = %d; want the largest, %d", h.quantile(1), all[len(all)-1])
	}
}

func TestHistEdges(t *testing.T) {
	var h hist
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("of nothing: %d; want 0", got)
	}
	for _, v := range []int64{-5, 0, 1, 63, 64, 127, 128, 1 << 39, 1 << 62} {
		h.add(v)
	}
	if got := h.quantile(1); got != 1<<62 {
		t.Errorf("largest: %d; want %d", got, int64(1)<<62)
	}
	for v := range int64(1 << 16) {
		if m := middle(bucket(v)); m < v-v/64-1 || m > v+v/64+1 {
			t.Fatalf("middle(bucket(%d)) = %d", v, m)
		}
	}
}
