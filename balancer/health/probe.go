package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"lbd/balancer"
)

// Prober asks a replica whether it is well. The error, nil with
// [balancer.Answered], explains the outcome.
type Prober interface {
	Probe(ctx context.Context, r *balancer.Replica, path string) (balancer.Outcome, error)
}

// httpProber makes a new connection for each probe: that a replica accepts is
// part of the question, and no idle connection can be closed under it (uvicorn
// closes them after 5 s).
type httpProber struct {
	client        *http.Client
	authorization func(listed string) string
}

func newHTTPProber(o Options) *httpProber {
	return &httpProber{&http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: o.Dial, DialTLSContext: o.DialTLS},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, o.Authorization}
}

// Probe implements [Prober]: only 2xx is well. A 404 is not: then the path is
// wrong, or something else listens there.
func (p *httpProber) Probe(ctx context.Context, r *balancer.Replica, path string) (balancer.Outcome, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Endpoint.URL()+"/"+strings.TrimPrefix(path, "/"), nil)
	if err != nil {
		return balancer.BadResponse, err
	}
	req.Host = r.Endpoint.Host
	if p.authorization != nil {
		if v := p.authorization(r.Listed); v != "" {
			req.Header.Set("Authorization", v)
		}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return classify(err), plain(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && err != io.EOF {
		return classify(err), plain(err)
	}
	switch {
	case resp.StatusCode >= 500:
		return balancer.ServerError, fmt.Errorf("status %d", resp.StatusCode)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return balancer.BadResponse, fmt.Errorf("status %d", resp.StatusCode)
	}
	return balancer.Answered, nil
}

// classify reads an outcome from an error of net/http.
func classify(err error) balancer.Outcome {
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	var t interface{ Timeout() bool }
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
	switch {
	case dialing && timeout:
		return balancer.ConnectTimeout
	case dialing:
		return balancer.ConnectRefused
	case timeout:
		return balancer.Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return balancer.Reset
	case errors.As(err, &op):
		return balancer.Reset
	default:
		return balancer.BadResponse
	}
}

// plain drops the "Get URL:" that net/http puts in front: the replica is named
// elsewhere.
func plain(err error) error {
	var e interface{ Unwrap() error }
	if errors.As(err, &e) {
		if inner := e.Unwrap(); inner != nil {
			return inner
		}
	}
	return err
}
