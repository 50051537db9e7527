package balancer

import (
	"math"
	"testing"
	"time"
)

// A gauge that no counter of requests can have must not make a replica look idle.
func TestGaugeBeyondInt(t *testing.T) {
	for _, v := range []float64{1e19, 1e300, -1e19} {
		r := NewReplica(Endpoint{Addr: "a:80"}, "", 1)
		r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(v), Running: Known(v)}, time.Now())
		if n, ok := r.Waiting(); ok && n < 0 {
			t.Errorf("gauge %g: %d waiting", v, n)
		}
		if n := r.Requests(); n < 0 {
			t.Errorf("gauge %g: %d requests", v, n)
		}
	}
}

// Strategies compare requests times weight. The largest gauge that is believed must not
// overflow with the largest weights of a configuration.
func TestGaugeTimesWeights(t *testing.T) {
	r := NewReplica(Endpoint{Addr: "a:80"}, "", 1_000_000)
	for v := 1.0; v < 1e19; v *= 2 {
		r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(v), Running: Known(v)}, time.Now())
		n, ok := r.Waiting()
		if !ok {
			return
		}
		if product := n * r.Weight; product/r.Weight != n || product*r.Weight/r.Weight != product {
			t.Fatalf("%d waiting times two weights of %d overflows", n, r.Weight)
		}
	}
	t.Error("any gauge is believed")
}

func TestCacheGaugesBeyondReason(t *testing.T) {
	for _, c := range []struct {
		usage, tokens float64
		want          Sample
	}{
		{0.5, 1000, Sample{KVUsage: Known(0.5), KVTokens: Known(1000)}},
		{1.25, 1000, Sample{KVUsage: Known(1), KVTokens: Known(1000)}},
		{1e308, 1e308, Sample{KVUsage: Known(1)}},
		{math.Inf(1), math.Inf(1), Sample{}},
		{math.NaN(), math.NaN(), Sample{}},
		{-1, -1, Sample{}},
	} {
		r := NewReplica(Endpoint{Addr: "a:80"}, "", 1)
		p := r.EndPoll(r.BeginPoll(), Sample{KVUsage: Known(c.usage), KVTokens: Known(c.tokens), Running: Known(1), Waiting: Known(0)}, time.Now())
		if p.KVUsage != c.want.KVUsage || p.KVTokens != c.want.KVTokens {
			t.Errorf("use %g of %g: %v of %v, want %v of %v", c.usage, c.tokens, p.KVUsage, p.KVTokens, c.want.KVUsage, c.want.KVTokens)
		}
		if f := p.ForeignTokens; f.Known && !(f.Value >= 0 && f.Value <= maxTokens) {
			t.Errorf("use %g of %g: %v foreign tokens", c.usage, c.tokens, f)
		}
	}
}
