package keys

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFile(t *testing.T) {
	d := DigestOf(aliceKey)
	got, err := ParseFile("\ufeff# clients\r\n\n  alice\t" + d.String() + " models=llama-8b,qwen/* max_in_flight=8\r\n" +
		"batch " + DigestOf(bobKey).String() + " requests_per_minute=600 models=a models=b tokens_per_minute=1000000000\n")
	want := []Entry{
		{Name: "alice", Digest: d, Limits: Limits{Models: []string{"llama-8b", "qwen/*"}, MaxInFlight: 8}},
		{Name: "batch", Digest: DigestOf(bobKey), Limits: Limits{Models: []string{"a", "b"}, RequestsPerMinute: 600, TokensPerMinute: 1_000_000_000}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// What Entry prints is what Parse reads.
func TestEntryRoundTrip(t *testing.T) {
	for _, e := range []Entry{
		entry("a", aliceKey, Limits{}),
		entry("a.b@c-d_E", aliceKey, Limits{Models: []string{"x/y", "z*"}, MaxInFlight: 1, RequestsPerMinute: 2, TokensPerMinute: 3}),
	} {
		got, err := ParseFile(e.String())
		if diff := cmp.Diff([]Entry{e}, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", e, err, diff)
		}
	}
}

func TestParseFaults(t *testing.T) {
	hash := DigestOf(aliceKey).String()
	for text, want := range map[string]string{
		"alice":                           "line 1: has one word; want NAME sha256:HASH",
		"\n\nalice " + aliceKey:           "line 3: has no sha256:HASH behind the name",
		aliceKey + " " + hash:             "line 1: has no valid name",
		"none " + hash:                    "has no valid name",
		"a/b " + hash:                     "has no valid name",
		"alice sha256:12":                 "the hash is not 64 hexadecimal digits",
		"alice sha256:" + hash:            "the hash is not 64 hexadecimal digits",
		"alice " + hash + " x":            "a word that is not NAME=VALUE",
		"alice " + hash + " rpm=1":        `unknown limit "rpm"; want models or max_in_flight, requests_per_minute, tokens_per_minute`,
		"alice " + hash + " models=":      `models is ""`,
		"alice " + hash + " models=a*b":   `models is "a*b"`,
		"alice " + hash + " models=a,,b":  `models is "a,,b"`,
		"alice " + hash + "\nbob " + hash: `"alice" and "bob" have the same key`,
		"alice " + hash + "\nalice " + DigestOf(bobKey).String() + " max_in_flight=1": `two entries named "alice" have different limits`,
		"alice " + hash + " max_in_flight=0":                                          `max_in_flight is "0"; want a number between 1 and 1000000000`,
		"alice " + hash + " tokens_per_minute=1e3":                                    `tokens_per_minute is "1e3"`,
		"alice " + hash + " requests_per_minute=1000000001":                           `requests_per_minute is "1000000001"`,
		"alice " + hash + " " + aliceKey + "==":                                       "unknown limit of 26 characters; want models or",
		"alice " + hash + " max_in_flight=" + aliceKey:                                "max_in_flight is of 26 characters; want a number",
		"x\ny": "line 1: has one word; want NAME sha256:HASH, as lbd key prints it\nline 2: has one word",
	} {
		got, err := ParseFile(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), aliceKey) {
			t.Errorf("the key is in the error: %v", err)
		}
	}
}

func TestParseValue(t *testing.T) {
	got, err := ParseValue(" alice "+aliceKey+" max_in_flight=2 ; bob "+DigestOf(bobKey).String()+"\n", true)
	want := []Entry{entry("alice", aliceKey, Limits{MaxInFlight: 2}), entry("bob", bobKey, Limits{})}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for text, want := range map[string]string{
		"alice short": "entry 1: the key has 5 characters; want at least 20",
		"a " + aliceKey + "; b x\x00yyyyyyyyyyyyyyyyyyyyyyyyy": "entry 2: the key contains a space, a control character",
		"a " + strings.Repeat("x", 513):                        "want at most 512",
	} {
		if _, err := ParseValue(text, true); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "yyyy") {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if _, err := ParseValue("alice "+aliceKey, false); err == nil || strings.Contains(err.Error(), aliceKey) {
		t.Errorf("a plain key where only hashes are taken: %v", err)
	}
}

func TestGenerate(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		k := Generate()
		if err := CheckKey(k); err != nil || !strings.HasPrefix(k, Prefix) || len(k) != len(Prefix)+43 || seen[k] {
			t.Fatalf("%q: %v", k, err)
		}
		seen[k] = true
	}
}

// FuzzParse: what is accepted prints to lines that mean the same, and no error
// repeats more of a line than an option's name and value.
func FuzzParse(f *testing.F) {
	hash := DigestOf(aliceKey).String()
	f.Add("alice "+hash+" models=a,b* max_in_flight=8\n#x\nbob "+DigestOf(bobKey).String(), false)
	f.Add("alice "+aliceKey+"; bob "+bobKey+" requests_per_minute=1", true)
	f.Add("alice "+hash+" models=\u00a0", false)
	f.Add("\x00 \xff;;=", true)
	f.Fuzz(func(t *testing.T, text string, plain bool) {
		entries, err := ParseValue(text, plain)
		if err != nil {
			return
		}
		var lines []string
		for _, e := range entries {
			lines = append(lines, fmt.Sprint(e))
		}
		again, err := ParseFile(strings.Join(lines, "\n"))
		if diff := cmp.Diff(entries, again); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", text, err, diff)
		}
	})
}
