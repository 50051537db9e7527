package relay

import (
	"bytes"
	"io"
	"testing"
	"time"

	"lbd/proxy/internal/sock"
)

// observed notes whether the stream still holds the buffer of the first bytes
// when it waits for more.
type observed struct {
	s    *Stream
	held bool
}

func (o *observed) SetReadDeadline(time.Time) error { return nil }

func (o *observed) ReadBuf() (*sock.Buf, int, error) {
	o.held = o.held || o.s.First != nil
	return nil, 0, io.EOF
}

// A stream goes on for minutes and may not hold a buffer while nothing comes.
func TestFirstBufferIsGivenBack(t *testing.T) {
	b := sock.GetBuf()
	n := copy(b.B[:], "2\r\nhi\r\n")
	s := &Stream{First: b, Rest: b.B[:n]}
	o := &observed{s: s}
	s.Up = o
	s.Body.Reset(Chunked, 0)
	var client bytes.Buffer
	if err := s.Run(&client); err == nil || client.String() != "2\r\nhi\r\n" {
		t.Errorf("%q, %v", &client, err)
	}
	if o.held || s.Rest != nil {
		t.Error("the first buffer is held while the stream waits")
	}
}
