package admin

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"lbd/balancer"
)

// drains are the actions lbd does itself.
var drains = map[string]func(Fleet, string) error{"drain": Fleet.Drain, "undrain": Fleet.Undrain}

func (s *Server) replicaPage(w http.ResponseWriter, r *http.Request) {
	snap := s.opt.Fleet.Snapshot()
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.EscapedPath(), "/replicas"), "/")
	rep, action := findReplica(snap, rest)
	switch {
	case rep == nil:
		unknownReplica(snap, rest).write(w)
	case action == "":
		methods{"GET": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, viewReplica(rep, time.Now()))
		}}.ServeHTTP(w, r)
	case drains[action] != nil:
		methods{"POST": func(w http.ResponseWriter, r *http.Request) { s.drain(w, r, rep.ID, action) }}.ServeHTTP(w, r)
	default:
		s.control(w, r, action, func(c *call) { s.callOne(w, r, rep.Replica, c) })
	}
}

func unknownReplica(snap *balancer.Snapshot, rest string) *problem {
	if text, err := url.PathUnescape(rest); err == nil {
		rest = text
	}
	for action := range drains { // any part of the rest may belong to an id, but for these
		rest = strings.TrimSuffix(rest, "/"+action)
	}
	names := make([]string, len(snap.Replicas))
	for i := range snap.Replicas {
		names[i] = snap.Replicas[i].ID
	}
	return notFound("replica_not_found", "no replica %q; want one of: %s", clip(rest), strings.Join(names, ", "))
}

// drain answers with the replica as it is afterwards.
func (s *Server) drain(w http.ResponseWriter, r *http.Request, id, action string) {
	if err := drains[action](s.opt.Fleet, id); err != nil { // it has left in between
		notFound("replica_not_found", "%s", err).write(w)
		return
	}
	s.opt.Log.Info().Str("client", r.RemoteAddr).Str("replica", id).Msg("operator asked to " + action)
	snap := s.opt.Fleet.Snapshot()
	rep := snap.Replica(id)
	if rep == nil {
		unknownReplica(snap, id).write(w)
		return
	}
	writeJSON(w, http.StatusOK, viewReplica(rep, time.Now()))
}

// findReplica splits an escaped path into the replica it begins with and what
// follows. An id with slashes is taken as one if they are escaped; plain ones
// leave room for doubt, as in h:80/v1/load_lora_adapter with replicas h:80 and
// h:80/v1, and then the reading wins whose action exists, the longer id first.
func findReplica(snap *balancer.Snapshot, rest string) (*balancer.ReplicaState, string) {
	first, tail, _ := strings.Cut(rest, "/")
	if id, err := url.PathUnescape(first); err == nil && strings.Contains(id, "/") {
		action, err := url.PathUnescape(tail)
		if err != nil {
			return nil, ""
		}
		return snap.Replica(id), action
	}
	var found *balancer.ReplicaState
	var action string
	for i := range snap.Replicas {
		r := &snap.Replicas[i]
		a, ok := actionBehind(rest, r.ID)
		if ok && (found == nil || better(a, r.ID, action, found.ID)) {
			found, action = r, a
		}
	}
	return found, action
}

// actionBehind tries the path as it came, since a base path keeps its escapes,
// and decoded.
func actionBehind(rest, id string) (action string, ok bool) {
	tail, raw := strings.CutPrefix(rest, id)
	if !raw {
		tail = rest
	}
	tail, err := url.PathUnescape(tail)
	if err != nil {
		return "", false
	}
	if !raw {
		if tail, ok = strings.CutPrefix(tail, id); !ok {
			return "", false
		}
	}
	if tail == "" {
		return "", true
	}
	return strings.CutPrefix(tail, "/")
}

func better(action, id, oldAction, oldID string) bool {
	if known, old := isAction(action), isAction(oldAction); known != old {
		return known
	}
	return len(id) > len(oldID)
}

func isAction(a string) bool { return a == "" || drains[a] != nil || controls[a] != "" }
