// Command bom writes what a release says of the modules in it: their licences and a
// bill of materials. What is in a binary is read from the binary itself, and what
// the licences say from the sources that the module cache has verified by go.sum.
//
//	go run ./scripts/bom licences > THIRD_PARTY.md
//	go run ./scripts/bom cyclonedx ./lbd > lbd.cdx.json
//
// Invariant: the same module graph gives the same bytes; a module whose licence is
// not recognised is an error and never left out.
package main
