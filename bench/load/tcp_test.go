package load

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/internal/loopback"
)

// runTCP is run over real sockets.
func runTCP(t *testing.T, s script, o Options) (*Results, *fake) {
	t.Helper()
	f := &fake{t: t, script: s}
	o.Target, o.KeepRecords = f.listen(), true
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res, f
}

func TestResetBeforeTheHead(t *testing.T) {
	s := func(c net.Conn, _ *fakeRequest) bool {
		c.(*net.TCPConn).SetLinger(0)
		return false
	}
	res, _ := runTCP(t, s, Options{Requests: every(1, 0)})
	if causes(res) != CauseReset {
		t.Errorf("%+v; want reset", res.Records[0])
	}
}

func TestConnectionRefused(t *testing.T) {
	res, err := Run(t.Context(), Options{Target: "http://" + loopback.Free(t), Requests: every(1, 0), KeepRecords: true})
	if err != nil || causes(res) != CauseConnect {
		t.Errorf("error %v, causes %s; want connect", err, causes(res))
	}
}

// A connection the server has closed while it was idle costs no request.
func TestClosedIdleConnectionIsNoticed(t *testing.T) {
	closed := make(chan struct{}, 1)
	answer := answerAfter(0, 0)
	s := func(c net.Conn, q *fakeRequest) bool {
		answer(c, q)
		// No "connection: close": the client cannot know but by looking.
		c.(*net.TCPConn).CloseWrite()
		closed <- struct{}{}
		return true
	}
	requests := func(yield func(Request) bool) {
		for q := range every(5, 0) {
			if !yield(q) {
				return
			}
			<-closed
		}
	}
	res, f := runTCP(t, s, Options{Requests: requests, Concurrency: 1})
	if res.OK != 5 || f.connections() != 5 {
		t.Errorf("%d ok over %d connections, want 5 over 5: %s", res.OK, f.connections(), causes(res))
	}
}

func TestConnectionIsReused(t *testing.T) {
	refuse := plainAnswer(429, "application/json", `{"error":{"message":"full","code":"overloaded"}}`)
	n := 0
	s := func(c net.Conn, q *fakeRequest) bool {
		if n++; n%2 == 0 {
			io.WriteString(c, refuse)
			return true
		}
		return answerAfter(0, 0)(c, q)
	}
	res, f := runTCP(t, s, Options{Requests: every(10, 0), Concurrency: 1})
	if res.OK != 5 || res.Errors["status_429 overloaded"] != 5 || f.connections() != 1 {
		t.Errorf("%d ok, errors %v, %d connections; want 5, 5 refused and 1", res.OK, res.Errors, f.connections())
	}
}

// The deadline of the request before does not spoil the connection.
func TestConnectionOutlivesItsRequestsDeadline(t *testing.T) {
	const timeout = 50 * time.Millisecond
	requests := func(yield func(Request) bool) {
		for q := range every(2, 0) {
			if !yield(q) {
				return
			}
			time.Sleep(2 * timeout)
		}
	}
	res, f := runTCP(t, answerAfter(0, 0), Options{Requests: requests, Concurrency: 1, Timeout: timeout})
	// On a machine too busy to answer in time there is nothing to see.
	if res.OK == 2 && f.connections() != 1 {
		t.Errorf("%d connections, want 1", f.connections())
	}
}

func TestTLS(t *testing.T) {
	var auth atomic.Value
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		auth.Store(q.URL.Path + " " + q.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\ndata: %s\n\ndata: [DONE]\n\n", textEvent, usageEvent(1, 1))
	}))
	defer s.Close()
	o := Options{Target: s.URL + "/base/", API: Completions, APIKey: "key", KeepRecords: true, Concurrency: 1,
		Requests: slices.Values([]Request{{PromptTokens: 1, OutputTokens: 1, Stream: true}, {PromptTokens: 1, OutputTokens: 1, Stream: true}})}
	res, err := Run(t.Context(), o)
	if err != nil || res.Errors[CauseConnect] != 2 || !strings.Contains(res.Samples[CauseConnect], "certificate") {
		t.Errorf("unknown certificate: %v, errors %v", err, res.Samples)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.target.tls.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if res, err = r.Run(t.Context()); err != nil || res.OK != 2 || res.OutputTokens != 2 || auth.Load() != "/base/v1/completions Bearer key" {
		t.Errorf("%v, %d ok, %v: %+v", err, res.OK, auth.Load(), res.Samples)
	}
}

// A server may refuse a body it has not read; its answer still counts.
func TestRefusedWithoutReadingTheBody(t *testing.T) {
	l := loopback.Listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, plainAnswer(413, "application/json", `{"error":{"message":"too large","code":"too_large"}}`))
		io.Copy(io.Discard, c) // an orderly server lingers, or its answer is lost to a reset
	}()
	res, err := Run(t.Context(), Options{Target: "http://" + l.Addr().String(), KeepRecords: true,
		Requests: one(Request{PromptTokens: 1 << 20, OutputTokens: 1, Stream: true})})
	l.Close()
	<-done
	if err != nil || causes(res) != "status_413 too_large" {
		t.Errorf("error %v, causes %s; want status_413", err, causes(res))
	}
}

// Hundreds of streams at once with bytes in random pieces, a quarter of them
// broken off: each ends as its own script says, none as its neighbour's.
func TestTorture(t *testing.T) {
	const n = 400
	var broken atomic.Int64
	s := func(c net.Conn, q *fakeRequest) bool {
		r := rand.New(rand.NewPCG(uint64(len(q.raw)), 1))
		var stream strings.Builder
		stream.WriteString("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-lbd-replica: " + q.body.Model + "\r\ntransfer-encoding: chunked\r\n\r\n")
		for range q.body.MaxTokens {
			payload := "data: " + tokenEvent + "\n\n"
			cut := r.IntN(len(payload))
			for _, part := range []string{payload[:cut], payload[cut:]} {
				if part != "" {
					fmt.Fprintf(&stream, "%x;ext=1\r\n%s\r\n", len(part), part)
				}
			}
		}
		end := "data: " + usageEvent(1, q.body.MaxTokens) + "\n\ndata: [DONE]\n\n"
		fmt.Fprintf(&stream, "%x\r\n%s\r\n0\r\n\r\n", len(end), end)
		bytes := stream.String()
		if q.body.MaxTokens%4 == 0 {
			broken.Add(1)
			bytes = bytes[:len(bytes)-1-r.IntN(len(end))]
		}
		for bytes != "" {
			k := min(len(bytes), 1+r.IntN(400))
			if _, err := io.WriteString(c, bytes[:k]); err != nil {
				return false
			}
			bytes = bytes[k:]
		}
		return q.body.MaxTokens%4 != 0
	}
	requests := func(yield func(Request) bool) {
		for i := range n {
			if !yield(Request{Model: fmt.Sprint("m", i%5), PromptTokens: 1 + i%50, OutputTokens: 1 + i%20, Stream: true}) {
				return
			}
		}
	}
	res, _ := runTCP(t, s, Options{Requests: requests, Concurrency: 100})
	if int64(res.Errors[CauseTruncated]) != broken.Load() || res.Failed != n/4 || res.OK != n-n/4 || res.WrongLength != 0 {
		t.Errorf("%d ok, errors %v, %d of wrong length; %d were broken", res.OK, res.Errors, res.WrongLength, broken.Load())
	}
	for _, rec := range res.Records {
		if rec.Replica != rec.Model {
			t.Errorf("request of %s answered for %s", rec.Model, rec.Replica)
		}
		if rec.OK() && rec.Events != rec.AskedOutput {
			t.Errorf("%d events, want %d", rec.Events, rec.AskedOutput)
		}
	}
}

func TestModels(t *testing.T) {
	var auth string
	answer := `{"object":"list","data":[{"id":"a/b"},{"id":"c"}]}`
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		auth = q.Method + " " + q.URL.Path + " " + q.Header.Get("Authorization")
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer s.Close()
	names, err := Models(t.Context(), s.URL+"/v1", "key")
	if diff := cmp.Diff([]string{"a/b", "c"}, names); diff != "" || err != nil || auth != "GET /v1/models Bearer key" {
		t.Errorf("%q: %v %s", auth, err, diff)
	}
	status, answer = http.StatusServiceUnavailable, `{"error":{"message":"none healthy","code":"no_healthy_replica"}}`
	if _, err := Models(t.Context(), s.URL, ""); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: none healthy") {
		t.Errorf("error %v, want the server's", err)
	}
}
