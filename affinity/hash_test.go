package affinity

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"lbd/balancer"
)

// homes says how many of n sessions are at home where.
func homesOf(s *site, n int, among []*balancer.Replica) map[*balancer.Replica]int {
	m, f := map[*balancer.Replica]int{}, newField(among)
	for i := range n {
		first, _ := f.closest(s.named(fmt.Sprint("session ", i)))
		m[among[first]]++
	}
	return m
}

// Each replica is the home of its share by weight, within five standard deviations.
func TestHashSpreadsByWeight(t *testing.T) {
	s := newSite(t, Config{Home: ByHash}, 5)
	weights := []int64{1, 1, 2, 3, 5}
	for i, w := range weights {
		s.replicas[i].Weight = w
	}
	const n = 20_000
	got := homesOf(s, n, s.replicas)
	for i, r := range s.replicas {
		p := float64(weights[i]) / 12
		if d := math.Abs(float64(got[r]) - n*p); d > 5*math.Sqrt(n*p*(1-p)) {
			t.Errorf("%d sessions at weight %d; want about %.0f", got[r], weights[i], n*p)
		}
	}
}

// A replica that leaves moves its own sessions and no others, to where they are second; the order of candidates means nothing.
func TestHashMovesLittle(t *testing.T) {
	s := newSite(t, Config{Home: ByHash}, 6)
	turned := slices.Clone(s.replicas)
	slices.Reverse(turned)
	without := slices.Delete(slices.Clone(s.replicas), 2, 3)
	for i := range 1000 {
		session := s.named(fmt.Sprint(i))
		first, second := newField(s.replicas).closest(session)
		f, _ := newField(turned).closest(session)
		if turned[f] != s.replicas[first] {
			t.Fatalf("session %d: another home in another order", i)
		}
		f, _ = newField(without).closest(session)
		want := s.replicas[first]
		if first == 2 {
			want = s.replicas[second]
		}
		if without[f] != want {
			t.Fatalf("session %d is at %s when r2 has left; want %s", i, without[f].ID, want.ID)
		}
	}
}

func TestHashYieldsToTheSecond(t *testing.T) {
	s := newSite(t, Config{Home: ByHash}, 4)
	session := s.named("a")
	first, second := newField(s.replicas).closest(session)
	if at := s.place(t, session, time.Time{}); at != s.replicas[first] {
		t.Fatal("not at home")
	}
	s.busy(first, 40)
	for range 3 {
		if at := s.place(t, session, time.Time{}); at != s.replicas[second] {
			t.Fatalf("at %s; want the second", at.ID)
		}
	}
	s.busy(second, 40)
	if at := s.place(t, session, time.Time{}); at != s.replicas[0] {
		t.Errorf("at %s; want what the strategy says", at.ID)
	}
	s.want(t, Session, map[Result]uint64{Hit: 1, Saturated: 4})
	if n := s.Stats(time.Now())[Session].Live; n != 0 {
		t.Errorf("%d entries; want none", n)
	}
}

// Every byte counts, and so does the length.
func TestStable(t *testing.T) {
	seen := map[uint64][]byte{}
	add := func(b []byte) {
		h := stable(1, b)
		if other, ok := seen[h]; ok {
			t.Errorf("%q and %q have one hash", b, other)
		}
		seen[h] = slices.Clone(b)
	}
	for n := range 40 {
		b := make([]byte, n)
		add(b)
		for i := range b {
			for _, v := range []byte{1, 0x80} {
				b[i] = v
				add(b)
				b[i] = 0
			}
		}
	}
	for _, s := range []string{"", "a", "r0:80", fmt.Sprintf("%0100d", 1)} {
		if stableString(3, s) != stable(3, []byte(s)) {
			t.Errorf("%q: another hash as a string", s)
		}
	}
}
