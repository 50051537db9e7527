package admin

import (
	"encoding/base64"
	"strings"
	"testing"
)

// Every page asks for the token, before anything else is looked at, and says no in
// the same way whatever is wrong.
func TestToken(t *testing.T) {
	f := newFleet(t, "http://a:1")
	s := start(t, Options{Fleet: f, Token: "correct horse"})
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for auth, want := range map[string]bool{
		"Bearer correct horse": true, "bearer  correct horse": true, basic("", "correct horse"): true, basic("x", "correct horse"): true,
		"": false, "Bearer": false, "Bearer ": false, "Bearer correct": false, "Bearer correct horse battery": false, "correct horse": false,
		basic("correct horse", ""): false, basic("x", "y"): false, "Basic correct horse": false, "Bearer Correct horse": false,
	} {
		for _, path := range []string{"/", "/fleet", "/metrics", "/debug/pprof/heap", "/nowhere", "/config"} {
			a := s.get(path, "Authorization", auth)
			if want == (a.status == 401) {
				t.Errorf("%s with %q: %d", path, auth, a.status)
			}
			if a.status == 401 && (a.header.Get("WWW-Authenticate") == "" || strings.Contains(a.body, "correct")) {
				t.Errorf("%s with %q: %v %s", path, auth, a.header, a.body)
			}
		}
		s.do("POST", "/replicas/a:1/drain", "", "Authorization", auth)
		if got := f.Snapshot().Replicas[0].Draining; got != want {
			t.Errorf("%q: drained %v", auth, got)
		}
		if err := f.Undrain("a:1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetToken("another"); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.get("/fleet", "Authorization", "Bearer correct horse"), 401, "invalid_admin_token")
	if a := s.get("/fleet", "Authorization", "Bearer another"); a.status != 200 {
		t.Errorf("the new token: %d", a.status)
	}
	if err := s.SetToken(""); err != nil {
		t.Fatal(err)
	}
	if a := s.get("/fleet"); a.status != 200 {
		t.Errorf("no token is asked for: %d", a.status)
	}
	if log := s.log.String(); strings.Contains(log, "correct") || strings.Contains(log, "another") {
		t.Errorf("the token is in the log: %s", log)
	}
}

// A page of another origin is kept out with the token as well: a browser may have
// it stored.
func TestTokenDoesNotOpenToOtherOrigins(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t, "http://a:1"), Token: "t"})
	wantError(t, s.do("POST", "/replicas/a:1/drain", "", "Authorization", "Bearer t", "Origin", "http://evil.example"), 403, "cross_origin")
	wantError(t, s.get("/fleet", "Authorization", "Bearer t", "Host", "rebound.example"), 403, "host_not_allowed")
}

// A replica gets its own key and never the operator's token.
func TestTokenStaysHere(t *testing.T) {
	url, id := newReplica(t, echo)
	own, ownID := newReplica(t, echo)
	s := start(t, Options{Fleet: newFleet(t, url, own), Token: "operators-token", ReplicaAPIKey: "common", ReplicaKey: func(r string) string {
		if r == ownID {
			return "Bearer own"
		}
		return ""
	}})
	for r, want := range map[string]string{id: `auth="Bearer common"`, ownID: `auth="Bearer own"`} {
		got := s.do("POST", "/replicas/"+r+"/sleep", "", "Authorization", "Bearer operators-token").body
		wantContains(t, got, want)
		if strings.Contains(got, "operators-token") {
			t.Errorf("the replica got the token: %s", got)
		}
	}
}
