package lines

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// limit is how much may have been put and not be written, in bytes: some 600 lines of
	// requests, four times what a pipe holds.
	limit = 256 << 10
	// lineRoom is what a line that is still to be put is counted as, in bytes. The line of
	// a request has some 400.
	lineRoom = 512
	// atOnce is what a pipe takes whole or not at all, in bytes: PIPE_BUF of Linux
	// (pipe(7)). More at once could end up around a line of another process: while one
	// lbd hands over to the next both write to the same log.
	atOnce = 4096
	// keepBuffer is the largest buffer that is kept when little of it is used, in bytes.
	keepBuffer = 64 << 10
	// patience is how long Close waits for a place that takes nothing.
	patience = 5 * time.Second
)

// Writer writes lines to one place.
type Writer struct {
	out    io.Writer
	onLost func(lines int, err error)
	done   chan struct{}

	taken atomic.Int64 // bytes that were put and are not written, and lineRoom for each line to come
	crowd atomic.Int64 // those who wait for room

	written atomic.Int64 // bytes

	mu     sync.Mutex
	put    []byte    // lines
	more   sync.Cond // of the writing goroutine: something is to be done
	room   sync.Cond // of the crowd
	tell   bool      // what was lost
	closed bool

	writing sync.Mutex // held by who writes; taken before mu
	spare   []byte     // the next put
	torn    bool       // the last line was written in part
	lost    int        // lines that were put
	fault   error      // of the first of them
	failed  bool       // the last write
}

// New returns a Writer, which owns a goroutine until Close. onLost is told of lines that
// were put and could not be written, once others can be again: it may write to the
// Writer. nil = nobody is.
func New(out io.Writer, onLost func(lines int, err error)) *Writer {
	if onLost == nil {
		onLost = func(int, error) {}
	}
	w := &Writer{out: out, onLost: onLost, done: make(chan struct{})}
	w.more.L, w.room.L = &w.mu, &w.mu
	go w.run()
	return w
}

// ErrStuck is why what was put is not written.
var ErrStuck = errors.New("the log takes nothing")

// Close writes what was put and ends the goroutine. What is put afterwards is waited for.
// It gives up, with ErrStuck, once nothing has been written for 5 s. A nil Writer has
// nothing to write.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	w.closed = true
	w.more.Signal()
	w.room.Broadcast()
	w.mu.Unlock()
	for before := w.written.Load(); ; {
		select {
		case <-w.done:
			return nil
		case <-time.After(patience):
		}
		now := w.written.Load()
		if now == before {
			return ErrStuck
		}
		before = now
	}
}

// Write writes p, one line, several or none, behind all that was put before.
func (w *Writer) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.flush()
	n, err := w.write(p)
	if err == nil && w.lost > 0 {
		w.canTell()
	}
	return n, err
}

// canTell leaves it to the goroutine to tell what was lost: whoever is told may write.
func (w *Writer) canTell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell = true
	w.more.Signal()
}

// Try takes room for a line. It returns false, at once, when there is none, or others
// wait for it.
func (w *Writer) Try() bool { return w.crowd.Load() == 0 && w.take() }

// Wait takes room for a line as soon as there is some.
func (w *Writer) Wait() {
	if w.Try() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crowd.Add(1)
	defer w.crowd.Add(-1)
	for !w.take() {
		if w.closed {
			w.taken.Add(lineRoom) // Put will wait instead
			return
		}
		w.room.Wait()
	}
}

// Give gives back room that is not needed.
func (w *Writer) Give() { w.freed(lineRoom) }

// Put hands a line in for which there is room, and keeps nothing of p.
func (w *Writer) Put(p []byte) {
	if !w.queue(p) {
		w.Give()
		w.Write(p) // it has nobody to tell an error to
	}
}

func (w *Writer) queue(p []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.taken.Add(int64(len(p)) - lineRoom)
	if len(w.put) == 0 {
		w.more.Signal()
	}
	w.put = append(w.put, p...)
	return true
}

func (w *Writer) take() bool {
	for {
		n := w.taken.Load()
		if n+lineRoom > limit {
			return false
		}
		if w.taken.CompareAndSwap(n, n+lineRoom) {
			return true
		}
	}
}

// freed lets as many of the crowd in as there is room for. Who comes to wait meanwhile
// sees the room, or is seen here.
func (w *Writer) freed(n int) {
	w.taken.Add(-int64(n))
	if w.crowd.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := min((limit-w.taken.Load())/lineRoom, w.crowd.Load()); k > 0; k-- {
		w.room.Signal()
	}
}

func (w *Writer) run() {
	defer close(w.done)
	for w.some() {
		if lines, err := w.turn(); lines > 0 {
			w.onLost(lines, err)
		}
	}
}

// some waits until something is to be done, and returns false when nothing will be.
func (w *Writer) some() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.put) == 0 && !w.tell && !w.closed {
		w.more.Wait()
	}
	todo := len(w.put) > 0 || w.tell
	w.tell = false
	return todo
}

// turn writes what was put, and returns what is to be told of what was lost.
func (w *Writer) turn() (lost int, err error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.flush()
	if !w.failed {
		lost, err = w.lost, w.fault
		w.lost, w.fault = 0, nil
	}
	return lost, err
}

// flush writes what was put.
func (w *Writer) flush() {
	w.mu.Lock()
	all := w.put
	w.put, w.spare = w.spare, nil
	w.mu.Unlock()
	for rest := all; len(rest) > 0; {
		p := rest[:whole(rest)]
		if n, err := w.write(p); err != nil {
			w.lose(p[n:], err)
		}
		w.freed(len(p))
		rest = rest[len(p):]
	}
	if cap(all) <= keepBuffer || len(all) > cap(all)/4 {
		w.spare = all[:0]
	}
}

// whole returns the size of the lines at the beginning of p that are written at once.
func whole(p []byte) int {
	if len(p) <= atOnce {
		return len(p)
	}
	if i := bytes.LastIndexByte(p[:atOnce], '\n'); i >= 0 {
		return i + 1
	}
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		return i + 1
	}
	return len(p)
}

var newline = []byte{'\n'}

// write begins a line of its own, also behind one that was cut: by a full disk, say.
func (w *Writer) write(p []byte) (n int, err error) {
	if w.torn {
		_, err = w.out.Write(newline)
	}
	if err == nil {
		n, err = w.out.Write(p)
		w.written.Add(int64(n))
		w.torn = n > 0 && p[n-1] != '\n'
	}
	w.failed = err != nil
	return n, err
}

// lose counts the lines that end in p.
func (w *Writer) lose(p []byte, err error) {
	if w.lost == 0 {
		w.fault = err
	}
	w.lost += bytes.Count(p, newline)
}
