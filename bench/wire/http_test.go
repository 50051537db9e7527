//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"
)

// What the rig sends is what its names say: right sizes, sound HTTP, sound JSON.
func TestRequestsAndAnswers(t *testing.T) {
	for _, n := range []int{200, 300, 10_000, 100_000} {
		for _, streamed := range []bool{false, true} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request(n, streamed, ""))))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			var v struct {
				Model  string
				Stream bool
			}
			if err := json.Unmarshal(b, &v); err != nil || len(b) != n || v.Model != model || v.Stream != streamed {
				t.Errorf("request(%d, %v): %d bytes, %+v, %v", n, streamed, len(b), v, err)
			}
		}
	}
	for _, a := range [][]byte{answer("application/json", completion(300)), replicaModels, replicaHealth, replicaMetrics} {
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(a)), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || int64(len(b)) != r.ContentLength {
			t.Errorf("%d bytes of %d: %v", len(b), r.ContentLength, err)
		}
		if r.Header.Get("Content-Type") == "application/json" && len(b) > 0 && !json.Valid(b) {
			t.Errorf("bad JSON: %s", b)
		}
	}
	if n := len(completion(300)); n != 300 {
		t.Errorf("completion(300) has %d bytes", n)
	}
}

func TestStreamIsSound(t *testing.T) {
	raw := streamHead + string(event) + string(event) + string(streamEnd)
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), "\n\n")
	for i, p := range parts[:len(parts)-2] {
		if data, ok := strings.CutPrefix(p, "data: "); !ok || !json.Valid([]byte(data)) {
			t.Errorf("event %d: %q", i, p)
		}
	}
	if got := parts[len(parts)-2]; got != "data: [DONE]" {
		t.Errorf("the end is %q", got)
	}
}

// stamped feeds a stream to a client's connection in pieces and returns it.
func stamped(raw []byte, piece int) *cconn {
	k := newClient(nil)
	c := &cconn{k: k, busy: true, gone: true, inBody: true, chunked: true}
	for len(raw) > 0 {
		n := min(piece, len(raw))
		for b := raw[:n]; len(b) > 0 && c.busy; {
			b = c.body(b)
		}
		raw = raw[n:]
	}
	return c
}

// The stamps survive any split of the bytes.
func TestStampsInPieces(t *testing.T) {
	var raw []byte
	for i := range 10 {
		stamp(event[eventMark:eventMark+markDigit], int64(i+1)<<40)
		raw = append(raw, event...)
	}
	raw = append(raw, streamEnd...)
	for piece := 1; piece < len(event)*2; piece++ {
		c := stamped(raw, piece)
		if c.events != 10 || c.latest != 10<<40 || c.busy || c.k.answers != 1 || len(c.k.errors) > 0 {
			t.Fatalf("pieces of %d: %d events, latest %x, busy %v, errors %v", piece, c.events, c.latest, c.busy, c.k.errors)
		}
	}
	c := stamped(append(bytes.Clone(event), event...), 50)
	if c.k.errors["events out of order"] != 1 {
		t.Errorf("an event that comes twice: %v", c.k.errors)
	}
}

func TestFraming(t *testing.T) {
	for _, c := range []struct {
		head    string
		length  int64
		chunked bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n", 42, false},
		{"HTTP/1.1 200 OK\r\ncontent-length:7\r\nx: y\r\n", 7, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", -1, true},
		{"HTTP/1.1 200 OK\r\nX-Content-Length: 3\r\n\n", -1, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 4x\r\n", -1, false},
		{"", -1, false},
	} {
		if length, chunked := framing([]byte(c.head)); length != c.length || chunked != c.chunked {
			t.Errorf("%q: %d, %v; want %d, %v", c.head, length, chunked, c.length, c.chunked)
		}
	}
}

// decode runs dechunk over pieces.
func decode(raw []byte, piece int) (body []byte, done, ok bool) {
	var d dechunk
	for len(raw) > 0 {
		n := min(piece, len(raw))
		b := raw[:n]
		raw = raw[n:]
		for len(b) > 0 {
			var part []byte
			b, part, done, ok = d.next(b)
			body = append(body, part...)
			if done || !ok {
				return body, done, ok
			}
		}
	}
	return body, false, true
}

// FuzzDechunk: whatever net/http decodes to its end, dechunk decodes to the same
// bytes, in one piece or bytewise.
func FuzzDechunk(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n", "x", "5\r\nhelloX", string(streamEnd)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		body, done, ok := decode(raw, len(raw)+1)
		again, done2, ok2 := decode(raw, 1)
		if !bytes.Equal(body, again) || done != done2 || ok != ok2 {
			t.Fatalf("whole: %q %v %v; bytewise: %q %v %v", body, done, ok, again, done2, ok2)
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(raw))))
		if err == nil && done && !bytes.Equal(body, want) {
			t.Fatalf("%q; net/http says %q", body, want)
		}
	})
}

func TestTimersFireInOrder(t *testing.T) {
	var q timers
	var got []int64
	for _, due := range []int64{50, 10, 40, 20, 30, 10} {
		n := 0
		q.add(due, func(now int64) int64 {
			got = append(got, due)
			if n++; n < 2 {
				return due + 100
			}
			return 0
		})
	}
	for now := range int64(200) {
		for q.fire(now) {
		}
	}
	want := []int64{10, 10, 20, 30, 40, 50, 10, 10, 20, 30, 40, 50}
	if len(got) != len(want) || len(q.heap) != 0 {
		t.Fatalf("fired %v, %d left; want %v", got, len(q.heap), want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("fired %v; want %v", got, want)
		}
	}
}

func TestGrid(t *testing.T) {
	r := &replica{grid: int64(time.Millisecond)}
	for _, c := range [][2]int64{{0, 0}, {1, 1e6}, {1e6, 1e6}, {1e6 + 1, 2e6}} {
		if got := r.onGrid(c[0]); got != c[1] {
			t.Errorf("onGrid(%d) = %d; want %d", c[0], got, c[1])
		}
	}
}
