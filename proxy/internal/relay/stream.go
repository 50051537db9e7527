package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"lbd/proxy/internal/sock"
)

// Errors of a relay that say who failed. A write error is the client's, the
// others are the replica's.
var (
	ErrTruncated = errors.New("response ended early")
	ErrSilence   = errors.New("silence within the response")
	ErrClient    = errors.New("client connection")
)

// Source is the replica's side of a relay.
type Source interface {
	// ReadBuf waits for bytes; the caller gives the buffer back.
	ReadBuf() (*sock.Buf, int, error)
	SetReadDeadline(time.Time) error
}

// Mode is what the client is given of a chunked body.
type Mode uint8

const (
	// Verbatim passes bytes on as they came, up to but without the last chunk,
	// which the server's own writer adds together with the trailer.
	Verbatim Mode = iota
	// Unchunk passes on the payload only, for clients that speak HTTP/1.0.
	Unchunk
	// Rechunk puts each read into a chunk, for a body that ends with the
	// replica's connection.
	Rechunk
)

// Stream is one response body on its way. The zero value is not ready: Body must
// be Reset first.
type Stream struct {
	Body  Body
	Up    Source
	Rest  []byte    // body bytes that came with the head
	First *sock.Buf // holds Rest, is given back when that was passed on; nil for another's
	Mode  Mode
	Sniff *Sniffer
	// Silence is the longest time without a byte from the replica, 0 = no limit.
	Silence time.Duration

	// Splice moves n bytes of a body of known length past this program; nil where
	// that cannot be done. Its errors are about either side.
	Splice func(n int64) (moved int64, err error)

	// Excess says that the replica's connection must not be used again: bytes
	// came behind the end of the body, or the end was the connection's.
	Excess bool
	// AtEOF says that the body's end was the connection's.
	AtEOF bool
	// Relayed counts the payload bytes passed on.
	Relayed int64

	held [maxSizeLine]byte // start of a size line whose end has not come
	nh   int
	out  [20]byte // a chunk-size line of our own

	pumped pumped
}

// Reset makes the stream ready for another response.
func (s *Stream) Reset() {
	s.Body.Reset(NoBody, 0)
	s.Up, s.Rest, s.First, s.Mode, s.Sniff = nil, nil, nil, Verbatim, nil
	s.Splice = nil
	s.Silence, s.Excess, s.AtEOF, s.Relayed, s.nh = 0, false, false, 0, 0
	s.pumped.client, s.pumped.err, s.pumped.acks = nil, nil, nil
}

// Run relays until the body has ended. The error wraps ErrTruncated,
// ErrBadFraming, ErrSilence, ErrClient or the cause of a broken replica
// connection.
func (s *Stream) Run(client io.Writer) error {
	if err := s.passRest(client); err != nil {
		return err
	}
	if err := s.splice(); err != nil {
		return err
	}
	seen := time.Now()
	if s.Silence > 0 && !s.Body.Ended() {
		if err := s.Up.SetReadDeadline(seen.Add(s.Silence)); err != nil {
			return s.readError(err)
		}
	}
	if p, ok := s.Up.(pump); ok {
		return s.pump(client, p, seen)
	}
	for !s.Body.Ended() {
		b, n, err := s.read(&seen)
		if err != nil {
			return s.readError(err)
		}
		err = s.pass(client, b.B[:n], seen)
		sock.PutBuf(b)
		if err != nil {
			return err
		}
	}
	return nil
}

// A body is spliced if so much of it is still to come, but for its tail, where the
// usage stands. Both in bytes; below a megabyte nothing is gained.
const (
	spliceFrom = 1 << 20
	spliceTail = 16 << 10
)

func (s *Stream) splice() error {
	if s.Splice == nil || s.Body.framing != Length || s.Body.left < spliceFrom {
		return nil
	}
	n, err := s.Splice(s.Body.left - spliceTail)
	s.Body.left -= n
	s.Relayed += n
	return err
}

// pump is a Source that reads many times in one call.
type pump interface {
	// Pump calls take with what each read brought until take returns false; then
	// its error is nil.
	Pump(take func(p []byte) (more bool)) error
}

// pumped is what the calls of one pump share.
type pumped struct {
	client io.Writer
	seen   time.Time
	err    error
	take   func([]byte) bool // Stream.take, made once

	acks acks // nil when they are not delayed
	slow int  // reads in turn that a delayed acknowledgement may have held back
}

func (s *Stream) pump(client io.Writer, p pump, seen time.Time) error {
	if s.pumped.take == nil {
		s.pumped.take = s.take
	}
	s.pumped.client, s.pumped.seen, s.pumped.err = client, seen, nil
	s.delayAcks(p)
	looked := false
	for !s.Body.Ended() {
		before := s.pumped.seen
		err := p.Pump(s.pumped.take)
		if err == nil {
			break
		}
		if errors.Is(err, sock.ErrBound) {
			return fmt.Errorf("%w: %w", ErrClient, err)
		}
		looked = looked && s.pumped.seen.Equal(before)
		if err = s.expired(err, s.pumped.seen, &looked); err != nil {
			return s.readError(err)
		}
	}
	return s.pumped.err
}

// take passes on what one read brought.
func (s *Stream) take(p []byte) (more bool) {
	now := time.Now()
	if s.pumped.acks != nil {
		s.pace(now.Sub(s.pumped.seen))
	}
	s.pumped.seen = now
	s.pumped.err = s.pass(s.pumped.client, p, now)
	return s.pumped.err == nil && !s.Body.Ended()
}

// acks is a Source that may acknowledge several events at once.
type acks interface{ DelayAcks(delay bool) }

// delayAcks saves acknowledgements of an answer of many small pieces.
func (s *Stream) delayAcks(p pump) {
	s.pumped.acks, s.pumped.slow = nil, 0
	if a, ok := p.(acks); ok && s.Body.framing != Length {
		s.pumped.acks = a
		a.DelayAcks(true)
	}
}

// slowReads is after how many reads in turn, each as late as a delayed
// acknowledgement would make it, a replica is taken for one that waits for them: it
// has lost a third of a second by then. Such a rate gains little from fewer
// acknowledgements anyway.
const slowReads = 8

// pace looks at the time since the read before.
func (s *Stream) pace(gap time.Duration) {
	if gap < sock.AckDelay-5*time.Millisecond { // timers of the kernel tick every 1 to 4 ms
		s.pumped.slow = 0
		return
	}
	if s.pumped.slow++; s.pumped.slow == slowReads {
		s.pumped.acks.DelayAcks(false)
		s.pumped.acks = nil
	}
}

// passRest passes on what came with the head. Its buffer is not held while the
// stream waits for more.
func (s *Stream) passRest(client io.Writer) (err error) {
	if len(s.Rest) > 0 {
		err = s.pass(client, s.Rest, time.Now())
	}
	s.DropRest()
	return err
}

// DropRest gives back the buffer of what came with the head, passed on or not.
func (s *Stream) DropRest() {
	sock.PutBuf(s.First)
	s.First, s.Rest = nil, nil
}

// Check looks through the bytes that came with the head without passing them on,
// so that a body which is malformed from the start can still be answered with an
// error.
func (s *Stream) Check() error {
	dry := s.Body
	for p := s.Rest; len(p) > 0; {
		_, n, _, err := dry.next(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// lastLook is how long a read may take that only asks whether bytes have come
// while a slow client was written to.
const lastLook = time.Millisecond

// read waits for bytes no longer than Silence after those before. The deadline is
// left where it is while events come and only moved when it expires: one timer
// operation per silence limit instead of one per event.
func (s *Stream) read(seen *time.Time) (*sock.Buf, int, error) {
	for looked := false; ; {
		b, n, err := s.Up.ReadBuf()
		if err == nil {
			*seen = time.Now()
			return b, n, nil
		}
		if err = s.expired(err, *seen, &looked); err != nil {
			return nil, 0, err
		}
	}
}

// expired looks at the error of a read. It returns nil if the deadline was not the
// limit, and has moved it.
func (s *Stream) expired(err error, seen time.Time, looked *bool) error {
	if s.Silence <= 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// A read with an expired deadline does not even look. The time since seen may
	// have gone into writing, with bytes waiting here.
	now, until := time.Now(), seen.Add(s.Silence)
	if !now.Before(until) {
		if *looked {
			return ErrSilence
		}
		*looked, until = true, now.Add(lastLook)
	}
	return s.Up.SetReadDeadline(until)
}

func (s *Stream) readError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		if s.Body.End() {
			s.Excess, s.AtEOF = true, true
			return nil
		}
		return ErrTruncated
	case errors.Is(err, ErrSilence):
		return err
	}
	return fmt.Errorf("%w: %w", ErrTruncated, err)
}

// pass hands one read's bytes to the sniffer and to the client.
func (s *Stream) pass(client io.Writer, p []byte, now time.Time) error {
	if s.Body.framing != Chunked {
		return s.passPlain(client, p, now)
	}
	from := 0 // start of what is to be written verbatim
	for i := 0; i < len(p); {
		kind, n, held, err := s.Body.next(p[i:])
		if err != nil {
			return err
		}
		switch {
		case kind == payload:
			if err := s.payload(client, p[i:i+n], now); err != nil {
				return err
			}
		case held:
			// The line may turn out to be the last chunk's: keep it back.
			if err := s.verbatim(client, p[from:i]); err != nil {
				return err
			}
			s.nh += copy(s.held[s.nh:], p[i:i+n])
			from = i + n
		case kind == framing && s.nh > 0:
			if err := s.verbatim(client, s.held[:s.nh]); err != nil {
				return err
			}
			s.nh = 0
		case kind == last || kind == excess:
			if err := s.verbatim(client, p[from:i]); err != nil {
				return err
			}
			from, s.nh = i+n, 0
			s.Excess = s.Excess || kind == excess
		}
		i += n
	}
	return s.verbatim(client, p[from:])
}

func (s *Stream) payload(client io.Writer, p []byte, now time.Time) error {
	s.Relayed += int64(len(p))
	if s.Sniff != nil {
		s.Sniff.Feed(p, now)
	}
	if s.Mode == Unchunk {
		return write(client, p)
	}
	return nil
}

func (s *Stream) verbatim(client io.Writer, p []byte) error {
	if s.Mode == Unchunk {
		return nil
	}
	return write(client, p)
}

// passPlain relays a body that is not chunked.
func (s *Stream) passPlain(client io.Writer, p []byte, now time.Time) error {
	kind, n, _, _ := s.Body.next(p)
	if kind == excess {
		n = 0
	}
	s.Excess = s.Excess || n < len(p)
	if p = p[:n]; n == 0 {
		return nil
	}
	s.Relayed += int64(n)
	if s.Sniff != nil {
		s.Sniff.Feed(p, now)
	}
	if s.Mode == Rechunk {
		return s.rechunk(client, p)
	}
	return write(client, p)
}

func (s *Stream) rechunk(client io.Writer, p []byte) error {
	line := append(appendHex(s.out[:0], len(p)), '\r', '\n')
	if err := write(client, line); err != nil {
		return err
	}
	if err := write(client, p); err != nil {
		return err
	}
	return write(client, line[len(line)-2:])
}

func appendHex(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 60
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return dst
}

func write(client io.Writer, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := client.Write(p); err != nil {
		return fmt.Errorf("%w: %w", ErrClient, err)
	}
	return nil
}
