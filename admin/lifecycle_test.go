package admin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func TestStopIsIdempotentAndEndsTheListener(t *testing.T) {
	s := New(Options{Fleet: newFleet(t), Log: zerolog.Nop()})
	if s.Addr() != nil {
		t.Errorf("address %v before the start", s.Addr())
	}
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("127.0.0.1:0"); err == nil {
		t.Error("started twice")
	}
	addr := s.Addr().String()
	for range 2 {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestStopBeforeStart(t *testing.T) {
	s := New(Options{Fleet: newFleet(t)})
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Start("127.0.0.1:0"); err == nil {
		t.Error("started after the stop")
	}
}

func TestStartOnATakenPort(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t)})
	other := New(Options{Fleet: newFleet(t)})
	var op *net.OpError
	if err := other.Start(s.Addr().String()); !errors.As(err, &op) {
		t.Errorf("%v; want a *net.OpError, which the daemon takes apart", err)
	}
	if err := other.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestStopWithoutTimeCutsCallsToReplicas(t *testing.T) {
	came, left := make(chan struct{}), make(chan struct{})
	url, _ := newReplica(t, func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
		close(left)
	})
	s := New(Options{Fleet: newFleet(t, url)})
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		resp, err := client.Post("http://"+s.Addr().String()+"/fleet/sleep", "", nil)
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-came
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	<-left
	<-answered
}

func TestStopWaitsForCallsThatFinishInTime(t *testing.T) {
	came, finish := make(chan struct{}), make(chan struct{})
	url, _ := newReplica(t, func(w http.ResponseWriter, _ *http.Request) {
		close(came)
		<-finish
		fmt.Fprint(w, "slept")
	})
	s := New(Options{Fleet: newFleet(t, url)})
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	body := make(chan string, 1)
	go func() {
		resp, err := client.Post("http://"+s.Addr().String()+"/fleet/sleep", "", nil)
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-came
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.Background()) }()
	close(finish)
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	wantContains(t, <-body, `"slept"`)
}

// An address that others can reach is not listened on without a token or a
// certificate, and a token in plain text is warned of.
func TestExposedListenerWantsProof(t *testing.T) {
	mutual := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	for _, c := range []struct {
		addr, token string
		tls         *tls.Config
		refused     bool
		warned      bool
	}{
		{"127.0.0.1:0", "", nil, false, false}, {"localhost:0", "", nil, false, false}, {"[::1]:0", "", nil, false, false},
		{"0.0.0.0:0", "", nil, true, false}, {":0", "", nil, true, false}, {"0.0.0.0:0", "", &tls.Config{}, true, false},
		{"0.0.0.0:0", "t", nil, false, true}, {":0", "t", &tls.Config{}, false, false}, {"0.0.0.0:0", "", mutual, false, false},
	} {
		log := &logBuffer{}
		s := New(Options{Fleet: newFleet(t), Log: zerolog.New(log), Token: c.token, TLS: c.tls})
		err := s.Start(c.addr)
		if errors.Is(err, ErrExposed) != c.refused || (err != nil) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		if c.refused && s.Addr() != nil {
			t.Errorf("%+v: it listens", c)
		}
		if got := strings.Contains(log.String(), `"level":"warn"`); got != c.warned {
			t.Errorf("%+v: log %s", c, log.String())
		}
		if err == nil && c.addr == "0.0.0.0:0" && c.tls == nil {
			if err := s.SetToken(""); !errors.Is(err, ErrExposed) {
				t.Errorf("the token was taken away: %v", err)
			}
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// pipes is a listener without a network, for tests about time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// exchange sends raw bytes and reads one response.
func (p *pipes) exchange(t *testing.T, raw string) (*http.Response, string) {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	p.conns <- theirs
	if _, err := io.WriteString(ours, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func startOnPipes(t *testing.T, o Options) (*Server, *pipes) {
	s, p := New(o), newPipes()
	s.start(p, "")
	return s, p
}

func TestBodyThatNeverArrives(t *testing.T) {
	for path, want := range map[string]int{
		"/fleet/sleep": 408, "/replicas/a:1/sleep": 408,
		"/replicas/a:1/drain": 200, "/nothing": 404, // these do not read it
	} {
		synctest.Test(t, func(t *testing.T) {
			s, p := startOnPipes(t, Options{Fleet: newFleet(t, "http://a:1")})
			defer s.Stop(context.Background())
			began := time.Now()
			resp, body := p.exchange(t, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123")
			if took := time.Since(began); resp.StatusCode != want || took > readTimeout {
				t.Errorf("%s: %d after %s: %s", path, resp.StatusCode, took, body)
			}
		})
	}
}

// The limit on reading must not outlast the reading and end a call that takes
// longer.
func TestCallMayTakeLongerThanReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := startOnPipes(t, Options{Fleet: newFleet(t, "http://a:1")})
		defer s.Stop(context.Background())
		s.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(2 * readTimeout):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}, nil
		})
		resp, body := p.exchange(t, "POST /fleet/sleep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\n123")
		if resp.StatusCode != 200 {
			t.Errorf("%d: %s", resp.StatusCode, body)
		}
	})
}

// A page that does not look at its context is waited for.
func TestStopJoinsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came := make(chan struct{})
		s, p := startOnPipes(t, Options{Fleet: newFleet(t), Config: func() any {
			close(came)
			time.Sleep(time.Hour)
			return nil
		}})
		ours, theirs := net.Pipe()
		defer ours.Close()
		p.conns <- theirs
		if _, err := io.WriteString(ours, "GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-came
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		began := time.Now()
		if err := s.Stop(ctx); !errors.Is(err, context.Canceled) || time.Since(began) != time.Hour {
			t.Errorf("stop: %v after %s", err, time.Since(began))
		}
	})
}

// With the first byte of a next request in hand, net/http no longer looks whether
// the client is there, and cutting the connection alone would not end the call.
func TestStopEndsCallsOfClientsThatPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := startOnPipes(t, Options{Fleet: newFleet(t, "http://a:1")})
		s.client.Transport = transport(hang)
		ours, theirs := net.Pipe()
		defer ours.Close()
		p.conns <- theirs
		if _, err := io.WriteString(ours, "POST /fleet/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := io.WriteString(ours, "P"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		began := time.Now()
		if err := s.Stop(ctx); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("stop: %v after %s", err, time.Since(began))
		}
	})
}

func TestPanicsAreLogged(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t), Config: func() any { panic("BUG: in a page") }})
	if _, err := client.Get("http://" + s.Addr().String() + "/config"); err == nil {
		t.Error("answered")
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	wantContains(t, s.log.String(), `"level":"error"`, "BUG: in a page")
}
