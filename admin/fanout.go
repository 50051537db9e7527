package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"lbd/balancer"
)

const (
	// parallelCalls bounds how many replicas one fan-out keeps busy at a time.
	parallelCalls = 8
	// maxResultBody bounds what is kept of one replica's answer, in bytes.
	maxResultBody = 1 << 20
)

type fanOutView struct {
	Results []result `json:"results"`
}

// result is one replica's part of a fan-out.
type result struct {
	Replica    string `json:"replica"`
	Status     *int   `json:"status"` // null = no answer
	Body       any    `json:"body,omitempty"`
	Truncated  bool   `json:"truncated,omitempty"`
	Error      string `json:"error,omitempty"`
	DurationMS int64  `json:"duration_ms"`
}

func (r *result) ok() bool { return r.Error == "" && *r.Status >= 200 && *r.Status < 300 }

func (s *Server) fanOutPage(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/fleet/")
	s.control(w, r, path, func(c *call) { s.callFleet(w, r, c) })
}

func (s *Server) callFleet(w http.ResponseWriter, r *http.Request, c *call) {
	query, models := cutModels(c.query)
	targets, p := targetsOf(s.opt.Fleet.Snapshot(), models)
	if p != nil {
		p.write(w)
		return
	}
	c.query = query
	results := s.fanOut(r.Context(), targets, c)
	s.logCall(r, c, results)
	status := http.StatusOK
	if slices.ContainsFunc(results, func(r result) bool { return !r.ok() }) {
		status = http.StatusBadGateway
	}
	writeJSON(w, status, fanOutView{results})
}

// cutModels takes the model parameters out of a query, which is passed on byte
// for byte otherwise.
func cutModels(query string) (rest string, models []string) {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(value)
		if key == "model" && err == nil {
			models = append(models, name)
		} else if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&"), models
}

// targetsOf returns all replicas, or those of the models, in the order of the
// configuration. To have called nobody is no success.
func targetsOf(snap *balancer.Snapshot, models []string) ([]*balancer.Replica, *problem) {
	var of []string
	for _, name := range models {
		m := snap.Model([]byte(name))
		if m == nil {
			return nil, unknownModel(snap, name)
		}
		of = append(of, ids(m.Replicas)...)
	}
	var targets []*balancer.Replica
	for i := range snap.Replicas {
		if r := snap.Replicas[i].Replica; len(models) == 0 || slices.Contains(of, r.ID) {
			targets = append(targets, r)
		}
	}
	if len(targets) == 0 {
		return nil, unavailable("no_replica", "there is no replica to call")
	}
	return targets, nil
}

func unknownModel(snap *balancer.Snapshot, name string) *problem {
	var served []string
	for _, m := range snap.Models {
		served = append(served, m.Name)
	}
	p := notFound("model_not_found", "no model %q; want one of: %s", clip(name), strings.Join(served, ", "))
	p.param = "model"
	return p
}

func (s *Server) fanOut(ctx context.Context, targets []*balancer.Replica, c *call) []result {
	results := make([]result, len(targets))
	next := make(chan int, len(targets))
	for i := range targets {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	for range min(parallelCalls, len(targets)) {
		workers.Go(func() {
			for i := range next {
				results[i] = s.resultOf(ctx, targets[i], c)
			}
		})
	}
	workers.Wait()
	return results
}

func (s *Server) resultOf(ctx context.Context, rep *balancer.Replica, c *call) result {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	res := result{Replica: rep.ID}
	if err := s.fetch(ctx, rep, c, &res); err != nil {
		res.Error, res.Body = reason(err), nil
	}
	res.DurationMS = time.Since(began).Milliseconds()
	return res
}

func (s *Server) fetch(ctx context.Context, rep *balancer.Replica, c *call, res *result) error {
	resp, err := s.send(ctx, rep, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	res.Status = &resp.StatusCode
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResultBody+1))
	if len(body) > maxResultBody {
		body, res.Truncated = body[:maxResultBody], true
	}
	res.Body = resultBody(resp.Header.Get("Content-Type"), body)
	return err
}

func resultBody(contentType string, body []byte) any {
	media, _, _ := mime.ParseMediaType(contentType)
	if media == "application/json" && json.Valid(body) {
		return json.RawMessage(body)
	}
	return string(body)
}

// reason drops the method and URL that net/http puts in front.
func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + callTimeout.String()
	case errors.Is(err, context.Canceled):
		return "the caller left, or lbd is stopping"
	}
	return err.Error()
}
