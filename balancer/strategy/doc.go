// Package strategy holds the rules that pick a replica, one file each, and [Table], which lists them all.
//
// Invariant: a strategy looks at the candidates it is given and at their live load, nothing else; it reserves nothing,
// blocks on nothing and allocates nothing. What it keeps between picks is a few words per model, so a snapshot swap
// or a reload takes nothing from it.
//
// Three rules hold for all of them. Ties rotate: a pick that finds several replicas equally good takes the one behind the
// last winner, never simply the first (first-index ties had the lowest goodput of every policy measured). A metric that is
// missing or stale is unknown, never zero: such a replica is judged by own load and what is typical of the others. Polled
// load is never used alone: every pick between two polls moves the figures that the next pick sees.
//
//	e, ok := strategy.Lookup("least-waiting")
//	picker := e.New(strategy.Options{}) // one per model
//	r := picker.Pick(&req, model.Available)
//
// A new strategy is one file, one line in table.go and one row in README.md; the conformance suite runs over the table.
package strategy
