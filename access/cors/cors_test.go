package cors

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func policy(t *testing.T, origins ...string) *Policy {
	t.Helper()
	p, err := New(origins)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAllow(t *testing.T) {
	list := policy(t, "https://chat.example.org", "http://localhost:3000")
	for _, c := range []struct {
		p      *Policy
		origin string
		value  string
		vary   bool
	}{
		{policy(t), "https://chat.example.org", "", false},
		{policy(t, Any), "https://evil.example", "*", false},
		{policy(t, Any), "", "", false},
		{policy(t, None), "https://chat.example.org", "", false},
		{list, "https://chat.example.org", "https://chat.example.org", true},
		{list, "http://localhost:3000", "http://localhost:3000", true},
		{list, "http://chat.example.org", "", true},
		{list, "https://chat.example.org.evil.example", "", true},
		{list, "https://evil.example/https://chat.example.org", "", true},
		{list, "null", "", true},
		{list, "", "", true},
	} {
		value, vary := c.p.Allow([]byte(c.origin))
		if string(value) != c.value || vary != c.vary {
			t.Errorf("%+v from %q: %q %v; want %q %v", c.p, c.origin, value, vary, c.value, c.vary)
		}
	}
	if n := testing.AllocsPerRun(100, func() { list.Allow([]byte("https://chat.example.org")) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOriginsThatCannotBe(t *testing.T) {
	for _, o := range []string{
		"chat.example.org", "https://chat.example.org/", "https://Chat.example.org", "https://a:443", "http://a:80", "https://*.example.org",
		"https://a b", "", "https://u@a", "https://a?x", "https://a\r\nx: y",
	} {
		if _, err := New([]string{o}); err == nil {
			t.Errorf("%q is taken", o)
		}
	}
	if _, err := New([]string{Any, "https://a"}); err == nil || !strings.Contains(err.Error(), "alone") {
		t.Errorf("%v", err)
	}
}

func TestPreflight(t *testing.T) {
	for _, c := range []struct {
		method, origin, asks string
		want                 bool
	}{
		{"OPTIONS", "https://a", "POST", true}, {"OPTIONS", "", "POST", false}, {"OPTIONS", "https://a", "", false}, {"POST", "https://a", "POST", false},
	} {
		if got := Preflight([]byte(c.method), []byte(c.origin), []byte(c.asks)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestHeaders(t *testing.T) {
	for asked, want := range map[string]string{
		"authorization,content-type": "authorization,content-type", "Authorization, X-Stainless-Lang": "Authorization, X-Stainless-Lang", "": "",
		"a\r\nset-cookie: x": "", "a;b": "", strings.Repeat("a", 1025): "",
	} {
		if got := string(Headers([]byte(asked))); got != want {
			t.Errorf("%q: %q", asked, got)
		}
	}
}

func TestOwns(t *testing.T) {
	p := policy(t, None)
	for name, want := range map[string]bool{"Access-Control-Allow-Origin": true, "access-control-expose-headers": true, "Vary": false, "Access-Control-": false, "": false} {
		if got := p.Owns([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if policy(t).Owns([]byte("Access-Control-Allow-Origin")) {
		t.Error("without origins lbd has no say")
	}
}
