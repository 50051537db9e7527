//go:build race

package strategy

// raceEnabled: sync.Pool forgets at random then.
const raceEnabled = true
