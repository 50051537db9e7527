package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// digest is what is kept of a token: two digests are compared in a time that tells
// nothing, whatever the lengths of what they were made of.
type digest [sha256.Size]byte

func digestOf(token string) *digest {
	if token == "" {
		return nil
	}
	d := digest(sha256.Sum256([]byte(token)))
	return &d
}

// SetToken replaces the token for requests that come from now on. A listener that
// other machines can reach is not left without one.
func (s *Server) SetToken(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token == "" && s.exposed && !s.wantsCertificates() {
		return ErrExposed
	}
	s.token.Store(digestOf(token))
	return nil
}

// authenticated asks every page's visitor for the token.
func (s *Server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := s.token.Load(); want != nil && !want.shownBy(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="lbd admin"`)
			unauthorized().write(w)
			return
		}
		r.Header.Del("Authorization") // it has no business behind this point
		next.ServeHTTP(w, r)
	})
}

// shownBy takes the token as a bearer token or, for tools and browsers that know
// nothing else (go tool pprof, http://:TOKEN@host), as a password of any user.
func (d *digest) shownBy(r *http.Request) bool {
	token := ""
	if scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimLeft(rest, " ")
	} else if _, password, ok := r.BasicAuth(); ok {
		token = password
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], d[:]) == 1
}

func unauthorized() *problem {
	return withStatus(http.StatusUnauthorized, badRequest("invalid_admin_token", "want the admin token as Authorization: Bearer TOKEN"))
}
