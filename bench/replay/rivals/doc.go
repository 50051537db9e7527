// Package rivals has the routing rules of other projects, to compare lbd's with. They are written from descriptions of the
// rules, not from their code; where a rule is about text, it is applied to the blocks of a trace, with four characters to
// a token. What was read into a rule, left out, or chosen where its source leaves it open stands at its type and in
// Policy.What.
//
// All of them are told what they ask for: exact own counts, and first tokens and ends at the instant they happen. None of
// the faults of their implementations (counters that leak, health checks that reset them) is copied, so that what loses
// here loses as a rule.
//
// Invariant: a rule keeps no account that its requests do not take back: with nothing in flight every load is zero.
//
//	for _, p := range rivals.Table { fmt.Println(p.Name, p.What) }
//	p, ok := rivals.Lookup("lmetric")
package rivals
