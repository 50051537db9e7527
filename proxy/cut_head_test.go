package proxy

import (
	"io"
	"net"
	"net/http"
	"testing"

	"lbd/access/cors"
)

// A replica ends its answer within the first chunk's size line, of which the client has seen
// nothing: its error is one that the page which asks may read, as every other.
func TestAnswerCutInItsFirstSizeLine(t *testing.T) {
	const origin = "https://chat.example.org"
	policy, err := cors.New([]string{origin})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := inFrontOf(t, Config{CORS: policy}, func(c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5")
		return false
	})
	c := l.dial()
	io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nOrigin: "+origin+"\r\nX-Request-Id: mine\r\nContent-Length: 2\r\n\r\n{}")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 502 {
		t.Errorf("%s; want 502", resp.Status)
	}
	for name, want := range map[string]string{"Access-Control-Allow-Origin": origin, "X-Request-Id": "mine", "Connection": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
}
