package keys

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestIdentify(t *testing.T) {
	k := set(t, entry("alice", aliceKey, Limits{}), entry("bob", bobKey, Limits{}))
	for _, c := range []struct {
		fields string
		who    string
		reason Reason
	}{
		{"Authorization|Bearer " + aliceKey, "alice", None},
		{"authorization|bearer   " + bobKey, "bob", None},
		{"X-API-Key|" + bobKey, "bob", None},
		{"x-api-key|" + bobKey + "|authorization|Bearer " + bobKey, "bob", None},
		{"Authorization|Bearer " + bobKey + "|Authorization|Bearer " + bobKey, "bob", None},
		{"Authorization|Basic dXNlcjpwYXNz|X-Api-Key|" + bobKey, "bob", None},
		{"Accept|*/*", "", Missing},
		{"Authorization|Basic dXNlcjpwYXNz", "", Missing},
		{"Authorization|Bearer", "", Missing},
		{"Authorization|Bearer ", "", Missing},
		{"X-Api-Key|", "", Missing},
		{"Authorization|" + aliceKey, "", Missing},
		{"Authorization|Bearer " + aliceKey + "x", "", Unknown},
		{"Authorization|Bearer " + aliceKey[:len(aliceKey)-1], "", Unknown},
		{"Authorization|Bearer " + DigestOf(aliceKey).String(), "", Unknown},
		{"Authorization|Bearer " + strings.Repeat("x", 1<<15), "", Unknown},
		{"Authorization|Bearer " + aliceKey + "|X-Api-Key|" + bobKey, "", Ambiguous},
		{"Authorization|Bearer " + aliceKey + "|Authorization|Bearer " + bobKey, "", Ambiguous},
		{"X-Api-Key|" + aliceKey + "|X-Api-Key|" + bobKey, "", Ambiguous},
	} {
		key, refused := k.Identify(sent(strings.Split(c.fields, "|")...))
		who := ""
		if key != nil {
			who = key.Name
		}
		if who != c.who || refused.Reason != c.reason {
			t.Errorf("%.60q: %q, %s; want %q, %s", c.fields, who, refused.Reason, c.who, c.reason)
		}
	}
}

func TestNoKeysAskForNone(t *testing.T) {
	k := New()
	if key, refused := k.Identify(sent()); key != nil || !refused.OK() || k.On() || k.Closed() {
		t.Errorf("%v %v", key, refused)
	}
	if err := k.Set(nil); err != nil {
		t.Fatal(err)
	}
	if _, refused := k.Identify(sent("Authorization", "Bearer "+aliceKey)); refused.Reason != Unknown || !k.On() || !k.Closed() {
		t.Errorf("an empty set lets in: %v", refused.Reason)
	}
	if err := k.Set([]Entry{entry("alice", aliceKey, Limits{})}); err != nil || k.Closed() {
		t.Errorf("closed with a key: %v", err)
	}
	k.Off()
	if _, refused := k.Identify(sent()); !refused.OK() {
		t.Errorf("off: %v", refused.Reason)
	}
}

// Digests that begin alike are told apart by all of their bytes.
func TestWholeDigestIsCompared(t *testing.T) {
	near := entry("near", aliceKey, Limits{})
	near.Digest[31] ^= 1
	k := set(t, near)
	if _, refused := k.Identify(sent("X-Api-Key", aliceKey)); refused.Reason != Unknown {
		t.Errorf("a digest that differs in its last bit is taken")
	}
	k = set(t, near, entry("alice", aliceKey, Limits{}))
	if key := identify(t, k, aliceKey); key.Name != "alice" {
		t.Errorf("taken for %s", key.Name)
	}
}

func TestAllows(t *testing.T) {
	k := set(t, entry("some", aliceKey, Limits{Models: []string{"llama-8b", "qwen/*", "sql"}}), entry("all", bobKey, Limits{}))
	some, all := identify(t, k, aliceKey), identify(t, k, bobKey)
	for model, c := range map[string]struct {
		aliases []string
		want    bool
	}{
		"llama-8b": {nil, true}, "meta-llama/Llama": {[]string{"x", "llama-8b"}, true}, "qwen/2.5": {nil, true}, "qwen": {nil, false},
		"llama-8b-2": {nil, false}, "LLAMA-8B": {nil, false}, "other": {[]string{"y"}, false}, "": {nil, false}, "mixed": {[]string{"qwen/x"}, true},
	} {
		if got := some.Allows(model, c.aliases); got != c.want {
			t.Errorf("%q %q: %v", model, c.aliases, got)
		}
		if !all.Allows(model, c.aliases) {
			t.Errorf("a key without models may not use %q", model)
		}
	}
	if !some.Restricted() || all.Restricted() {
		t.Error("restricted")
	}
}

// A reload keeps what a client has in flight and has been charged, and ends what
// runs under a key that is gone.
func TestReloadKeepsUsage(t *testing.T) {
	now := time.Now()
	k := set(t, entry("alice", aliceKey, Limits{MaxInFlight: 1, RequestsPerMinute: 5}))
	grant, refused := identify(t, k, aliceKey).Begin(now, 1)
	if !refused.OK() {
		t.Fatal(refused.Reason)
	}
	rotated := []Entry{entry("alice", aliceKey, Limits{MaxInFlight: 2, RequestsPerMinute: 2}), entry("alice", bobKey, Limits{MaxInFlight: 2, RequestsPerMinute: 2})}
	if err := k.Set(rotated); err != nil {
		t.Fatal(err)
	}
	second, refused := identify(t, k, bobKey).Begin(now, 1)
	if !refused.OK() {
		t.Fatalf("the second of two in flight: %s", refused.Reason)
	}
	if _, refused := identify(t, k, aliceKey).Begin(now, 1); refused.Reason != InFlight {
		t.Errorf("the third of two in flight: %s", refused.Reason)
	}
	if err := k.Set([]Entry{entry("carol", "lbd-carol-0123456789abcdef", Limits{})}); err != nil {
		t.Fatal(err)
	}
	if _, refused := k.Identify(sent("X-Api-Key", aliceKey)); refused.Reason != Unknown {
		t.Errorf("a key that is gone: %s", refused.Reason)
	}
	grant.End(now, 10)
	second.End(now, 10)
	second.End(now, 10)
	if n := grantless(k, "carol"); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

func grantless(k *Keys, name string) int64 {
	for _, u := range k.Usage() {
		if u.Name == name {
			return u.InFlight
		}
	}
	return -1
}

// A bad set changes nothing.
func TestSetThatFails(t *testing.T) {
	k := set(t, entry("alice", aliceKey, Limits{}))
	if err := k.Set([]Entry{entry("a", bobKey, Limits{}), entry("b", bobKey, Limits{})}); err == nil {
		t.Error("the same key twice is taken")
	}
	identify(t, k, aliceKey)
}

func TestConcurrentReloads(t *testing.T) {
	entries := []Entry{entry("alice", aliceKey, Limits{MaxInFlight: 4, RequestsPerMinute: maxLimit, TokensPerMinute: maxLimit})}
	k := set(t, entries...)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				key, refused := k.Identify(sent("X-Api-Key", aliceKey))
				if !refused.OK() {
					t.Errorf("refused: %s", refused.Reason)
					return
				}
				grant, refused := key.Begin(time.Now(), 10)
				if !refused.OK() {
					t.Errorf("refused: %s", refused.Reason)
					return
				}
				grant.End(time.Now(), 20)
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			if err := k.Set(entries); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	u := k.Usage()[0]
	if u.InFlight != 0 || u.Admitted != 8000 || u.Tokens != 160000 {
		t.Errorf("%+v", u)
	}
}

func TestUsageCountsRefusals(t *testing.T) {
	now := time.Now()
	k := set(t, entry("alice", aliceKey, Limits{MaxInFlight: 1, Models: []string{"m"}}))
	key := identify(t, k, aliceKey)
	grant, _ := key.Begin(now, 1)
	key.Begin(now, 1)
	key.RefuseModel()
	k.Identify(sent())
	k.Identify(sent("X-Api-Key", "nobody's"))
	grant.End(now, 7)
	u := k.Usage()
	if a := u[0]; a.Name != "alice" || a.Admitted != 1 || a.Tokens != 7 || a.Refused[InFlight] != 1 || a.Refused[Model] != 1 || a.Refused[Tokens] != 0 {
		t.Errorf("%+v", a)
	}
	if n := u[1]; n.Name != "none" || n.Refused[Missing] != 1 || n.Refused[Unknown] != 1 || n.Refused[Ambiguous] != 0 {
		t.Errorf("%+v", n)
	}
}

// The answers are complete and OpenAI's.
func TestRefusals(t *testing.T) {
	for r := Missing; r < reasons; r++ {
		a := Refusal{Reason: r}
		want := map[Reason]int{Missing: 401, Unknown: 401, Ambiguous: 401, Model: 403}[r]
		if want == 0 {
			want = 429
		}
		if a.Status() != want || a.Type() == "" || a.Code() == "" || a.Message() == "" || r.String() == "" || a.OK() {
			t.Errorf("%d: %d %q %q %q", r, a.Status(), a.Type(), a.Code(), a.Message())
		}
	}
	for wait, want := range map[time.Duration]int{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, time.Minute: 60} {
		if got := (Refusal{Reason: Requests, RetryAfter: wait}).RetryAfterSeconds(); got != want {
			t.Errorf("%v: %d", wait, got)
		}
	}
}

func TestIsCredential(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "authorization": true, "X-API-KEY": true, "x-api-key": true,
		"Authorizations": false, "X-Api-Kez": false, "": false, "Content-Type": false, "Last-Modified": false,
	} {
		if got := IsCredential([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// FuzzPresented: whoever is identified sent that very key, and what carries it is
// known as a credential.
func FuzzPresented(f *testing.F) {
	f.Add("Authorization", "Bearer "+aliceKey, "X-Api-Key", "")
	f.Add("x-api-key", aliceKey, "AUTHORIZATION", "bearer  "+bobKey)
	f.Add("X-Api-Kez", "\x00", "Authorization", "Bearer")
	k := New()
	if err := k.Set([]Entry{entry("alice", aliceKey, Limits{}), entry("bob", bobKey, Limits{})}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		key, refused := k.Identify(sent(name1, value1, name2, value2))
		if (key == nil) == refused.OK() {
			t.Fatalf("%v and %s", key, refused.Reason)
		}
		if key == nil {
			return
		}
		want := []byte(map[string]string{"alice": aliceKey, "bob": bobKey}[key.Name])
		in1 := bytes.HasSuffix([]byte(value1), want) && IsCredential([]byte(name1))
		in2 := bytes.HasSuffix([]byte(value2), want) && IsCredential([]byte(name2))
		if !in1 && !in2 {
			t.Errorf("%q: %q, %q: %q is taken for %s", name1, value1, name2, value2, key.Name)
		}
	})
}

// A client that leaves and comes back is the same client.
func TestUsageOutlivesLeaving(t *testing.T) {
	for name, leave := range map[string]func(k *Keys) error{
		"no entry": func(k *Keys) error { return k.Set([]Entry{entry("bob", bobKey, Limits{})}) },
		"off":      func(k *Keys) error { k.Off(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			alice := entry("alice", aliceKey, Limits{MaxInFlight: 1})
			k := set(t, alice)
			key, _ := k.Identify(sent("X-Api-Key", aliceKey))
			grant, refused := key.Begin(time.Now(), 10)
			if !refused.OK() {
				t.Fatal(refused.Reason)
			}
			if err := leave(k); err != nil {
				t.Fatal(err)
			}
			if err := k.Set([]Entry{alice}); err != nil {
				t.Fatal(err)
			}
			back, _ := k.Identify(sent("X-Api-Key", aliceKey))
			if _, refused := back.Begin(time.Now(), 10); refused.OK() {
				t.Error("a second request is let in while the first one runs")
			}
			grant.End(time.Now(), 100)
			if next, refused := back.Begin(time.Now(), 10); !refused.OK() {
				t.Errorf("refused when nothing runs: %v", refused.Reason)
			} else {
				next.End(time.Now(), 0)
			}
			if got := back.usage.spent.Load(); got != 100 {
				t.Errorf("%d tokens charged, want 100", got)
			}
		})
	}
}
