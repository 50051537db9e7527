package admin

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
)

// methods are the handlers of one path. HEAD goes to GET.
type methods map[string]http.HandlerFunc

// route is one path of the listener and its line in the index.
type route struct {
	path, text string
	handler    http.Handler
}

// table lists every page, in the order of the index. /replicas/ and /fleet/ are
// parsed by their handlers, since an id may hold slashes.
func (s *Server) table() []route {
	rs := []route{
		{"/{$}", "", methods{"GET": s.indexPage}},
		{"/", "", http.HandlerFunc(unknownPage)},
		{"/fleet", "GET   the snapshot: replicas, models, load, health and why; ?format=table", methods{"GET": s.fleetPage}},
		{"/replicas/", "GET   {id}: one replica; POST {id}/drain, {id}/undrain, {id}/{control path}", http.HandlerFunc(s.replicaPage)},
		{"/replicas", "", http.HandlerFunc(s.replicaPage)},
		{"/fleet/", "POST  {control path}: at all replicas, or at those of ?model=NAME", http.HandlerFunc(s.fanOutPage)},
	}
	if s.opt.Explain != nil {
		rs = append(rs, route{"/pick", "POST  a request body: who would get it, and each replica's terms", methods{"POST": s.pickPage}})
	}
	if s.opt.Config != nil {
		rs = append(rs, route{"/config", "GET   the configuration in effect, secrets redacted", methods{"GET": s.configPage}})
	}
	if s.opt.Reload != nil {
		rs = append(rs, route{"/reload", "POST  read the configuration again", methods{"POST": s.reloadPage}})
	}
	if s.opt.Metrics != nil {
		rs = append(rs, route{"/metrics", "GET   lbd's own metrics", methods{"GET": s.opt.Metrics.ServeHTTP}})
	}
	return append(rs, s.debugTable()...)
}

func (s *Server) mux() http.Handler {
	m := http.NewServeMux()
	for _, r := range s.routes {
		m.Handle(r.path, r.handler)
	}
	return m
}

// ServeHTTP answers 405 with the methods there are.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == "HEAD" {
		method = "GET"
	}
	if h := m[method]; h != nil {
		h(w, r)
		return
	}
	notAllowed(w, r, slices.Sorted(maps.Keys(m))...)
}

func notAllowed(w http.ResponseWriter, r *http.Request, want ...string) {
	if i := slices.Index(want, "GET"); i >= 0 {
		want = slices.Insert(want, i+1, "HEAD")
	}
	allow := strings.Join(want, ", ")
	w.Header().Set("Allow", allow)
	withStatus(http.StatusMethodNotAllowed,
		badRequest("method_not_allowed", "%s does not take %s; want %s", clip(r.URL.Path), clip(r.Method), allow)).write(w)
}

func unknownPage(w http.ResponseWriter, r *http.Request) {
	notFound("unknown_path", "%q is not a page of the admin listener; GET / lists them", clip(r.URL.Path)).write(w)
}

func (s *Server) indexPage(w http.ResponseWriter, _ *http.Request) { s.writeIndex(w, "") }

func (s *Server) debugPage(w http.ResponseWriter, _ *http.Request) { s.writeIndex(w, "/debug/") }

func (s *Server) writeIndex(w http.ResponseWriter, prefix string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "lbd %s, admin listener\n\n", s.opt.Version)
	for _, r := range s.routes {
		if r.text != "" && strings.HasPrefix(r.path, prefix) {
			fmt.Fprintf(w, "%-22s %s\n", r.path, r.text)
		}
	}
	if prefix == "" {
		fmt.Fprintf(w, "\ncontrol paths: %s\n", strings.Join(controlNames(), ", "))
	}
}

func (s *Server) configPage(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.opt.Config())
}

type reloadView struct {
	OK bool `json:"reloaded"`
	Reloaded
}

func (s *Server) reloadPage(w http.ResponseWriter, r *http.Request) {
	done, err := s.opt.Reload()
	s.opt.Log.Info().Str("client", r.RemoteAddr).Bool("reloaded", err == nil).Msg("operator asked for a reload")
	if err != nil {
		withStatus(http.StatusUnprocessableEntity, badRequest("invalid_configuration", "%s", err)).write(w)
		return
	}
	writeJSON(w, http.StatusOK, reloadView{true, done})
}

// readBody reads a body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, withStatus(http.StatusRequestEntityTooLarge, badRequest("request_too_large", "the body is larger than %d bytes", limit))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, withStatus(http.StatusRequestTimeout, badRequest("request_timeout", "the body did not arrive within %s", readTimeout))
	}
	return nil, badRequest("malformed_request", "the body could not be read")
}
