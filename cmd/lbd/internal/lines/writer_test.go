package lines

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// place is where lines are written to. Nothing gets on while there is a gate that is not
// closed, in the sense of channels.
type place struct {
	gate chan struct{}

	mu     sync.Mutex
	b      bytes.Buffer
	writes []int // sizes
	fail   func(p []byte) (n int, err error)
}

func (p *place) Write(line []byte) (int, error) {
	if p.gate != nil {
		<-p.gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := len(line), error(nil)
	if p.fail != nil {
		n, err = p.fail(line)
	}
	p.b.Write(line[:n])
	p.writes = append(p.writes, n)
	return n, err
}

func (p *place) failing(f func(p []byte) (int, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = f
}

func (p *place) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// line is one of n bytes.
func line(n int, text string) []byte {
	return []byte(text + strings.Repeat("-", n-len(text)-1) + "\n")
}

func put(w *Writer, p []byte) {
	w.Wait()
	w.Put(p)
}

// What was put stands before what was written behind it, and Write returns when both are.
func TestOrder(t *testing.T) {
	var out place
	w := New(&out, nil)
	defer w.Close()
	want := ""
	for i := range 1000 {
		p := fmt.Sprintf("line %d\n", i)
		want += p
		if rand.IntN(10) > 0 {
			put(w, []byte(p))
			continue
		}
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		if out.String() != want {
			t.Fatalf("not all is written when Write returns: %d bytes of %d", len(out.String()), len(want))
		}
	}
	w.Close()
	if out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// Lines that come while one is written go together, as many as a pipe takes at once; one
// that is longer goes alone.
func TestTogether(t *testing.T) {
	out := place{gate: make(chan struct{})}
	w := New(&out, nil)
	put(w, line(10, ""))
	for range 20 {
		put(w, line(1000, ""))
	}
	put(w, line(5000, ""))
	put(w, line(10, ""))
	close(out.gate)
	w.Close()
	if len(out.writes) > 1+1+5+1+1 {
		t.Errorf("%d writes of 23 lines: %d", len(out.writes), out.writes)
	}
	for _, n := range out.writes {
		if n > atOnce && n != 5000 {
			t.Errorf("a write of %d bytes; want at most %d", n, atOnce)
		}
	}
	if got := out.String(); len(got) != 25020 || strings.Count(got, "\n") != 23 {
		t.Errorf("%d bytes", len(got))
	}
}

// When nothing gets on, there is room for limit bytes. Then Try fails and Wait waits, for
// as long as it takes, in a bounded queue; and everybody gets room when something gets on.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := place{gate: make(chan struct{})}
		w := New(&out, nil)
		n := 0
		for ; w.Try(); n++ {
			w.Put(line(400, fmt.Sprintf("turn %d ", n)))
		}
		if n < limit/400-2 || n > limit/400 {
			t.Errorf("room for %d lines of 400 bytes", n)
		}
		const crowd = 5000
		var in atomic.Int64
		var g sync.WaitGroup
		for i := range crowd {
			g.Go(func() {
				w.Wait()
				in.Add(1)
				w.Put(line(300+i%200, fmt.Sprintf("goroutine %d ", i)))
			})
		}
		synctest.Wait()
		if k := in.Load(); k > 2 {
			t.Errorf("%d got room where there was none", k)
		}
		if w.Try() {
			t.Error("room for one who does not wait, before those who do")
		}
		if m := int64(len(w.put)); m > limit {
			t.Errorf("%d bytes queued; want at most %d", m, limit)
		}
		close(out.gate)
		g.Wait()
		w.Close()
		if k := strings.Count(out.String(), "\n"); k != n+crowd {
			t.Errorf("%d lines; want %d", k, n+crowd)
		}
		if k := w.taken.Load(); k != 0 {
			t.Errorf("%d bytes are still counted", k)
		}
	})
}

// Room that is given back lets somebody else in.
func TestGive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out place
		w := New(&out, nil)
		defer w.Close()
		n := 0
		for w.Try() {
			n++
		}
		if n != limit/lineRoom {
			t.Errorf("room for %d lines; want %d", n, limit/lineRoom)
		}
		waited := make(chan struct{})
		go func() { w.Wait(); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("room where there is none")
		default:
		}
		w.Give()
		<-waited
		for range n {
			w.Give()
		}
		if k := w.taken.Load(); k != 0 {
			t.Errorf("%d bytes are still counted", k)
		}
	})
}

// Close writes all that was put, lets everybody in, and what comes later is written too.
// A place that takes nothing holds up the end for a while only.
func TestCloseStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := place{gate: make(chan struct{})}
		w := New(&out, nil)
		put(w, []byte("a line\n"))
		began := time.Now()
		if err := w.Close(); !errors.Is(err, ErrStuck) || time.Since(began) != patience {
			t.Errorf("%v after %v; want %v after %v", err, time.Since(began), ErrStuck, patience)
		}
		close(out.gate)
		if err := w.Close(); err != nil {
			t.Errorf("%v once it takes lines again", err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := place{gate: make(chan struct{})}
		w := New(&out, nil)
		n := 0
		for ; w.Try(); n++ {
			w.Put(line(lineRoom, ""))
		}
		var g sync.WaitGroup
		for range 10 {
			g.Go(func() { put(w, line(lineRoom, "")) })
		}
		synctest.Wait()
		g.Go(func() { w.Close() })
		for !closed(w) {
			runtime.Gosched()
		}
		close(out.gate)
		g.Wait()
		w.Close()
		put(w, line(lineRoom, "late"))
		if k := strings.Count(out.String(), "\n"); k != n+11 {
			t.Errorf("%d lines; want %d", k, n+11)
		}
		if k := w.taken.Load(); k != 0 {
			t.Errorf("%d bytes are still counted", k)
		}
	})
	var none *Writer
	none.Close()
}

func closed(w *Writer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// Lines that cannot be written are counted and told of when others can be; one that was
// cut does not spoil the next.
func TestFailing(t *testing.T) {
	full := errors.New("disk full")
	type loss struct {
		lines int
		err   error
	}
	told := make(chan loss, 10)
	var out place
	var w *Writer
	w = New(&out, func(n int, err error) {
		w.Write([]byte("told\n"))
		told <- loss{n, err} // c comes behind it
	})
	defer w.Close()
	put(w, []byte("a\n"))
	w.Write(nil)
	out.failing(func(p []byte) (int, error) { return len(p) / 2, full }) // takes a part
	put(w, []byte("cut\n"))
	w.Write(nil)
	out.failing(func([]byte) (int, error) { return 0, full })
	for range 100 {
		put(w, []byte("lost\n"))
	}
	if _, err := w.Write([]byte("lost, and its writer knows\n")); err != full {
		t.Errorf("%v; want what the write said", err)
	}
	if len(told) > 0 {
		t.Errorf("told of %v while nothing can be written", <-told)
	}
	out.failing(nil)
	w.Write([]byte("b\n"))
	if got := <-told; got.lines != 101 || got.err != full {
		t.Errorf("told of %v; want 101 lines", got)
	}
	put(w, []byte("c\n"))
	w.Close()
	if got, want := out.String(), "a\ncu\nb\ntold\nc\n"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

// Two processes may write to one pipe, while one hands over to the other. No line of one
// stands within a line of the other.
func TestOnePipe(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const each = 3000
	var g sync.WaitGroup
	for name := range 2 {
		g.Go(func() {
			w := New(p, nil)
			defer w.Close()
			for i := range each {
				put(w, line(200+(i*7)%700, fmt.Sprintf("%d of %d ", i, name)))
			}
		})
	}
	go func() { g.Wait(); p.Close() }()
	next := [2]int{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var i, name int
		if _, err := fmt.Sscanf(sc.Text(), "%d of %d ", &i, &name); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		if i != next[name] || len(sc.Text()) != 200+(i*7)%700-1 {
			t.Fatalf("line %q of %d; want line %d", sc.Text(), name, next[name])
		}
		next[name]++
	}
	if next != [2]int{each, each} {
		t.Errorf("%d lines; want %d of each", next, each)
	}
}

// A place without room at all is no reason to stop.
func TestFullDevice(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	w := New(f, func(n int, err error) { t.Errorf("told of %d lost lines where nothing can be told", n) })
	for range 10000 {
		put(w, line(400, ""))
	}
	if _, err := w.Write([]byte("x\n")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v; want ENOSPC", err)
	}
	w.Close()
	if w.lost != 10000 || w.taken.Load() != 0 {
		t.Errorf("%d lines lost, %d bytes counted; want 10000 and 0", w.lost, w.taken.Load())
	}
}

func TestPutAllocatesNothing(t *testing.T) {
	var out nowhere
	w := New(out, nil)
	defer w.Close()
	p := line(400, "")
	for range 10 * limit / 400 { // buffers grow
		put(w, p)
	}
	if n := testing.AllocsPerRun(1000, func() {
		for range 10 {
			put(w, p)
		}
		w.Write(nil)
	}); n > 0 {
		t.Errorf("%v allocations for ten lines; want none", n)
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkPut(b *testing.B) {
	w := New(nowhere{}, nil)
	defer w.Close()
	p := line(400, "")
	b.ReportAllocs()
	for b.Loop() {
		put(w, p)
	}
}

// Whatever sizes lines have, what is written at once is whole lines and all of them.
func FuzzWhole(f *testing.F) {
	f.Add([]byte("a\nb\n"))
	f.Add(bytes.Repeat([]byte("0123456789\n"), 1000))
	f.Add(append(bytes.Repeat([]byte("x"), 5000), "\ny\n"...))
	f.Add(bytes.Repeat([]byte("x"), 5000))
	f.Fuzz(func(t *testing.T, p []byte) {
		for len(p) > 0 {
			n := whole(p)
			if n <= 0 || n > len(p) {
				t.Fatalf("%d of %d bytes", n, len(p))
			}
			if n < len(p) && p[n-1] != '\n' {
				t.Fatalf("a line is cut at %d", n)
			}
			if n > atOnce && bytes.IndexByte(p[:n-1], '\n') >= 0 {
				t.Fatalf("%d bytes at once", n)
			}
			p = p[n:]
		}
	})
}
