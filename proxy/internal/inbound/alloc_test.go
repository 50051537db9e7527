//go:build !race

package inbound

import (
	"io"
	"net"
	"strings"
	"testing"
)

// constant answers every request with the same bytes.
type constant struct{}

func (constant) Admit(*Conn) error { return nil }
func (constant) Serve(c *Conn) bool {
	o := GetOut()
	o.B = append(o.B, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"...)
	c.Reply(o)
	return true
}
func (constant) Refuse(*Conn, error) {}

// small requests, as clients send them.
var requests = map[string]string{
	"get": "GET /v1/models HTTP/1.1\r\nHost: lbd.example.org\r\nAuthorization: Bearer abc\r\nAccept: */*\r\n\r\n",
	"post": "POST /v1/chat/completions HTTP/1.1\r\nHost: lbd.example.org\r\nAccept: application/json\r\nContent-Type: application/json\r\n" +
		"User-Agent: OpenAI/Python 1.0\r\nContent-Length: 40\r\n\r\n" + strings.Repeat("x", 40),
	"large body": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
	"chunked":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}

func serveOne(t testing.TB, in string) (exchange func()) {
	s := still(constant{}, plentiful)
	p := newPair(t, newWatch(t))
	sc, peer := p.next(t)
	s.begin(sc)
	t.Cleanup(func() {
		peer.Close()
		if err := s.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	raw, answer := []byte(in), make([]byte, len("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	return func() { talk(t, peer, raw, answer) }
}

func talk(t testing.TB, peer *net.TCPConn, raw, answer []byte) {
	peer.Write(raw)
	if _, err := io.ReadFull(peer, answer); err != nil {
		t.Fatal(err)
	}
}

// Reading a request and writing its answer allocate nothing once a connection has
// carried one, whatever its framing.
func TestRequestAllocatesNothing(t *testing.T) {
	for name, in := range requests {
		t.Run(name, func(t *testing.T) {
			exchange := serveOne(t, in)
			for range 10 {
				exchange()
			}
			// A collection empties the pools of buffers, so a few runs may pay for one.
			if n := testing.AllocsPerRun(500, exchange); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	var r Request
	head, _, _ := strings.Cut(requests["post"], "\r\n\r\n")
	raw := []byte(head + "\r\n\r\n")
	if err := r.parse(raw); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(200, func() { r.parse(raw) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	var r Request
	head, _, _ := strings.Cut(requests["post"], "\r\n\r\n")
	raw := []byte(head + "\r\n\r\n")
	for b.Loop() {
		if err := r.parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExchange is a request and its answer with the client's share.
func BenchmarkExchange(b *testing.B) {
	exchange := serveOne(b, requests["post"])
	for b.Loop() {
		exchange()
	}
}
