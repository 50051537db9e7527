//go:build !race

package config

import "testing"

// A look at the type of a key costs no memory: reloads do it for every variable.
func TestKindAllocates(t *testing.T) {
	k := keyByName("models")
	if n := testing.AllocsPerRun(100, func() {
		if k.scalar() || k.secret() {
			t.Fatal("models has neither a flag nor a secret")
		}
	}); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}
