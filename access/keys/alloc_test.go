//go:build !race

package keys

import (
	"testing"
	"time"
)

// The way of every request allocates nothing, whether it is let in or not.
func TestNoAllocations(t *testing.T) {
	limits := Limits{Models: []string{"a", "b*"}, MaxInFlight: 10, RequestsPerMinute: maxLimit, TokensPerMinute: maxLimit}
	k := set(t, entry("alice", aliceKey, limits), entry("poor", bobKey, Limits{RequestsPerMinute: 1}))
	name, good, poor, bad := []byte("Authorization"), []byte("Bearer "+aliceKey), []byte("Bearer "+bobKey), []byte("Bearer nobody's")
	for what, value := range map[string][]byte{"let in": good, "over a limit": poor, "unknown": bad} {
		if n := testing.AllocsPerRun(1000, func() { request(k, name, value) }); n != 0 {
			t.Errorf("%s: %v allocations; want none", what, n)
		}
	}
}

// request does what the data plane does for one request.
func request(k *Keys, name, value []byte) {
	var p Presented
	p.Field(name, value)
	key, refused := k.Identify(&p)
	if !refused.OK() {
		return
	}
	if !key.Allows("model", nil) {
		key.RefuseModel()
	}
	now := time.Now()
	g, refused := key.Begin(now, 100)
	if refused.OK() {
		g.End(now, 300)
	}
}

func benchmark(b *testing.B, value string) {
	k := New()
	var entries []Entry
	for range 1000 {
		entries = append(entries, Entry{Name: Generate()[:15], Digest: DigestOf(Generate())})
	}
	entries = append(entries, entry("alice", aliceKey, Limits{MaxInFlight: 1000, RequestsPerMinute: maxLimit, TokensPerMinute: maxLimit}))
	if err := k.Set(entries); err != nil {
		b.Fatal(err)
	}
	name, v := []byte("Authorization"), []byte(value)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request(k, name, v)
		}
	})
}

// All that access control costs one request, of 1,001 keys.
func BenchmarkRequest(b *testing.B) { benchmark(b, "Bearer "+aliceKey) }

// What a request without a valid key costs.
func BenchmarkUnknownKey(b *testing.B) {
	benchmark(b, "Bearer "+Prefix+"nobody-has-this-key-0123456789abcdefghijkl")
}
