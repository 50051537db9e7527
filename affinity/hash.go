package affinity

import (
	"encoding/binary"
	"math"
	"math/bits"

	"lbd/balancer"
)

// stable hashes b the same way in every process, which maphash does not: lbds have to agree. It multiplies words to 128 bits
// and folds them, as wyhash does (Wang Yi, 2019). Clients can make sessions collide; that costs them their balance, up to the
// bound on a home's load, and nobody else anything.
func stable(seed uint64, b []byte) uint64 {
	h := seed ^ uint64(len(b))*prime1
	for len(b) >= 8 {
		h = fold(h^binary.LittleEndian.Uint64(b), prime2)
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	return fold(h^tail, prime1)
}

// The primes of wyhash's secret: odd, 32 bits set.
const (
	prime1 = 0xa0761d6478bd642f
	prime2 = 0xe7037ed1a0b428db
)

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// mark is what a table keeps of a replica: bytes that stay the same over restarts, reloads and snapshots.
func mark(r *balancer.Replica) uint64 { return stableString(prime2, r.ID) }

func stableString(seed uint64, s string) uint64 {
	var buf [64]byte
	if len(s) <= len(buf) {
		return stable(seed, buf[:copy(buf[:], s)])
	}
	return stable(seed, []byte(s))
}

// A field is the candidates of a snapshot beside what every look at them needs.
type field struct {
	replicas []*balancer.Replica
	marks    []uint64
	even     bool // all have the same weight
}

func newField(candidates []*balancer.Replica) *field {
	f := &field{replicas: candidates, marks: make([]uint64, len(candidates)), even: true}
	for i, r := range candidates {
		f.marks[i] = mark(r)
		f.even = f.even && r.Weight == candidates[0].Weight
	}
	return f
}

// is says whether f is of these candidates. A slice of candidates is never written to, and f keeps it from being made anew in
// the same place.
func (f *field) is(candidates []*balancer.Replica) bool {
	return f != nil && len(f.replicas) == len(candidates) && &f.replicas[0] == &candidates[0]
}

// distance is the weighted rendezvous rank of the i-th replica for a session, the smaller the closer: an exponential variable
// of rate weight, so that each replica is the closest one to its share of the sessions (Schindelhauer and Schomaker 2005). Of
// even weights the order is that of the hash.
func (f *field) distance(session uint64, i int) float64 {
	u := (float64(fold(session^f.marks[i], prime1)>>11) + 0.5) / (1 << 53) // within (0, 1)
	if f.even {
		return -u
	}
	return -math.Log(u) / float64(f.replicas[i].Weight)
}

// closest returns the two closest candidates; second is -1 if there is one only.
func (f *field) closest(session uint64) (first, second int) {
	first, second = -1, -1
	var d1, d2 float64
	for i := range f.marks {
		switch d := f.distance(session, i); {
		case first < 0 || d < d1:
			second, d2 = first, d1
			first, d1 = i, d
		case second < 0 || d < d2:
			second, d2 = i, d
		}
	}
	return first, second
}
