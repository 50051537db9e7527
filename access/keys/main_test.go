package keys

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Keys of the tests.
const (
	aliceKey = "lbd-alice-0123456789abcdef"
	bobKey   = "lbd-bob-0123456789abcdef"
)

func set(t *testing.T, entries ...Entry) *Keys {
	t.Helper()
	k := New()
	if err := k.Set(entries); err != nil {
		t.Fatal(err)
	}
	return k
}

func entry(name, key string, l Limits) Entry {
	return Entry{Name: name, Digest: DigestOf(key), Limits: l}
}

// sent is what a request with these header fields presents.
func sent(fields ...string) *Presented {
	var p Presented
	for i := 0; i < len(fields); i += 2 {
		p.Field([]byte(fields[i]), []byte(fields[i+1]))
	}
	return &p
}

func identify(t *testing.T, k *Keys, key string) *Key {
	t.Helper()
	got, refused := k.Identify(sent("Authorization", "Bearer "+key))
	if !refused.OK() {
		t.Fatalf("refused: %s", refused.Reason)
	}
	return got
}
