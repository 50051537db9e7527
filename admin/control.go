package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/balancer"
)

// controls are vLLM's paths that act on one replica or tell of one, and their
// method (vLLM v0.19, vllm/entrypoints). The proxy refuses the same paths.
var controls = map[string]string{
	"sleep": "POST", "wake_up": "POST", "is_sleeping": "GET",
	"pause": "POST", "resume": "POST", "is_paused": "GET",
	"start_profile": "POST", "stop_profile": "POST",
	"reset_prefix_cache": "POST", "reset_mm_cache": "POST", "reset_encoder_cache": "POST",
	"v1/load_lora_adapter": "POST", "v1/unload_lora_adapter": "POST",
	"collective_rpc": "POST", "abort_requests": "POST",
	"scale_elastic_ep": "POST", "is_scaling_elastic_ep": "POST",
	"server_info": "GET", "tokenizer_info": "GET", "load": "GET", "version": "GET",
	"metrics": "GET", "metrics/": "GET", // with ?name[]= the slash is needed
}

func controlNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(controls)), func(p string) bool { return strings.HasSuffix(p, "/") })
}

const (
	// maxControlBody bounds what is passed on to a replica, in bytes.
	maxControlBody = 1 << 20
	// callTimeout is for sleep and LoRA loading, which move gigabytes.
	callTimeout = 5 * time.Minute
	// connectTimeout keeps a dead machine from taking callTimeout.
	connectTimeout = 5 * time.Second
)

// newClient makes a connection per call: calls are rare, and uvicorn closes idle
// connections after 5 s, under a request that must not be sent twice.
func newClient(dial, dialTLS func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       withTimeout(dial),
			DialTLSContext:    withTimeout(dialTLS),
			DisableKeepAlives: true, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// withTimeout bounds connect and handshake.
func withTimeout(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if dial == nil {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		return dial(ctx, network, addr)
	}
}

// call is one control call, as it is passed on.
type call struct {
	method, path, query string
	contentType, accept string
	body                []byte
}

// changes says whether the call does something at the replica.
func (c *call) changes() bool { return c.method == http.MethodPost }

// control checks a control call and has it made.
func (s *Server) control(w http.ResponseWriter, r *http.Request, path string, do func(*call)) {
	want := controls[path]
	if want == "" {
		notFound("unknown_control_path", "%q is not a control path; want one of: %s", clip(path), strings.Join(controlNames(), ", ")).write(w)
		return
	}
	methods{want: func(w http.ResponseWriter, r *http.Request) {
		body, p := readBody(w, r, maxControlBody)
		if p != nil {
			p.write(w)
			return
		}
		do(&call{
			method: r.Method, path: path, query: r.URL.RawQuery, body: body,
			contentType: r.Header.Get("Content-Type"), accept: r.Header.Get("Accept"),
		})
	}}.ServeHTTP(w, r)
}

// send makes the call at one replica. The caller closes the body.
func (s *Server) send(ctx context.Context, rep *balancer.Replica, c *call) (*http.Response, error) {
	url := rep.Endpoint.URL() + "/" + c.path
	if c.query != "" {
		url += "?" + c.query
	}
	req, err := http.NewRequestWithContext(ctx, c.method, url, bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	req.Host = rep.Endpoint.Host
	setHeader(req.Header, "Content-Type", c.contentType)
	setHeader(req.Header, "Accept", c.accept)
	setHeader(req.Header, "Authorization", s.authorization(rep.Listed))
	req.Header.Set("User-Agent", "lbd/"+s.opt.Version)
	return s.client.Do(req)
}

// authorization is what a replica is shown; the operator's own token never is.
func (s *Server) authorization(listed string) string {
	if s.opt.ReplicaKey != nil {
		if v := s.opt.ReplicaKey(listed); v != "" {
			return v
		}
	}
	if key := *s.apiKey.Load(); key != "" {
		return "Bearer " + key
	}
	return ""
}

func setHeader(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// callOne passes the replica's answer through. An answer that breaks off breaks
// off here as well.
func (s *Server) callOne(w http.ResponseWriter, r *http.Request, rep *balancer.Replica, c *call) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	resp, err := s.send(ctx, rep, c)
	if err != nil {
		s.logCall(r, c, []result{{Replica: rep.ID}})
		replicaProblem(rep.ID, err).write(w)
		return
	}
	defer resp.Body.Close()
	s.logCall(r, c, []result{{Replica: rep.ID, Status: &resp.StatusCode}})
	h := w.Header()
	h["Content-Type"] = resp.Header["Content-Type"] // nil keeps net/http from guessing one
	h.Set("Content-Security-Policy", "sandbox")     // a page of the replica's is not one of ours
	if resp.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func replicaProblem(id string, err error) *problem {
	if errors.Is(err, context.DeadlineExceeded) {
		return &problem{status: http.StatusGatewayTimeout, kind: "timeout", code: "timeout", message: id + " did not answer within " + callTimeout.String()}
	}
	return &problem{status: http.StatusBadGateway, kind: "replica_error", code: "replica_error", message: id + " did not answer: " + reason(err)}
}

// logCall tells who did what, and how replicas answered; 0 is no answer.
func (s *Server) logCall(r *http.Request, c *call, results []result) {
	if !c.changes() {
		return
	}
	replicas, statuses := make([]string, len(results)), make([]int, len(results))
	for i, res := range results {
		replicas[i] = res.Replica
		if res.Status != nil {
			statuses[i] = *res.Status
		}
	}
	s.opt.Log.Info().Str("client", r.RemoteAddr).Str("path", "/"+c.path).Strs("replicas", replicas).Ints("statuses", statuses).
		Msg("operator made a control call")
}
