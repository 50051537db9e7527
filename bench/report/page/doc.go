// Package page turns measurements into one HTML file that needs nothing else: no
// network, no script to be readable, light or dark as the reader's system is.
// A Page is plain data; whoever has figures fills one and writes it:
//
//	p := page.Page{Title: "baseline against managed", Verdict: v, Sections: []page.Section{{Title: "Latency", Charts: charts}}}
//	err := p.WriteHTML(w)
//
// Invariants: what a chart shows is also in a table below it, and no meaning is
// carried by colour alone: every series has its own dash and its name in the
// legend, every tone its word. Equal pages give equal bytes.
package page
