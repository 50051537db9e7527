package load

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// maxEvent bounds one event. A content event of vLLM has 200 to 400 bytes, with
// log-probabilities a few KiB.
const maxEvent = 1 << 20

var errEventTooLong = errors.New("event longer than 1 MiB")

// eventReader splits a stream into server-sent events (WHATWG HTML, section 9.2).
// Lines end with LF or CRLF; the lone CR the standard also allows is not used by
// any OpenAI-compatible server and not known here.
type eventReader struct {
	r     io.Reader
	buf   []byte // unread bytes are buf[pos:]
	pos   int
	data  []byte    // the event in the making
	stamp time.Time // when the newest bytes arrived
	from  *conn     // which knows that; nil in tests
	err   error
}

func (e *eventReader) reset(r io.Reader) {
	*e = eventReader{r: r, buf: e.buf[:0], data: e.data[:0]}
}

// next returns the data of the next event, valid until the call after it. Events
// without data (comments, keep-alives) are skipped. An event the end of the stream
// cuts off is dropped, as the standard says; the error is then the stream's,
// io.EOF at its orderly end. stamp is when the event's last byte arrived.
func (e *eventReader) next() ([]byte, error) {
	e.data = e.data[:0]
	some := false
	for {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if some {
				return e.data, nil
			}
			continue
		}
		value, ok := dataField(line)
		if !ok {
			continue
		}
		if some {
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
		some = true
		if len(e.data) > maxEvent {
			return nil, errEventTooLong
		}
	}
}

// dataField is the value of a data line; one space after the colon is not part of it.
func dataField(line []byte) ([]byte, bool) {
	value, ok := bytes.CutPrefix(line, []byte("data"))
	if !ok || len(value) == 0 {
		return nil, ok
	}
	if value[0] != ':' {
		return nil, false
	}
	return bytes.TrimPrefix(value[1:], []byte(" ")), true
}

// line returns the next line without its end.
func (e *eventReader) line() ([]byte, error) {
	searched := e.pos
	for {
		if i := bytes.IndexByte(e.buf[searched:], '\n'); i >= 0 {
			line := e.buf[e.pos : searched+i]
			e.pos = searched + i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if len(e.buf)-e.pos > maxEvent {
			return nil, errEventTooLong
		}
		unread := len(e.buf) - e.pos
		if err := e.fill(); err != nil {
			return nil, err
		}
		searched = e.pos + unread
	}
}

// fill reads more bytes behind the unread ones.
func (e *eventReader) fill() error {
	if e.err != nil {
		return e.err
	}
	if e.pos > 0 {
		e.buf = e.buf[:copy(e.buf, e.buf[e.pos:])]
		e.pos = 0
	}
	if len(e.buf) == cap(e.buf) {
		e.buf = append(e.buf, make([]byte, max(2048, cap(e.buf)))...)[:len(e.buf)]
	}
	n, err := e.r.Read(e.buf[len(e.buf):cap(e.buf)])
	e.buf = e.buf[:len(e.buf)+n]
	if e.from != nil {
		e.stamp = e.from.arrived
	} else {
		e.stamp = time.Now()
	}
	e.err = err
	if n > 0 {
		return nil
	}
	return err
}
