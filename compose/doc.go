// Package compose holds the environments that Docker Compose starts, and the tests
// that read them with the Compose specification's own loader.
//
// Invariant: baseline.yml and managed.yml differ in what is compared and in nothing
// else; difference_test.go lists every difference with its reason.
//
//	docker compose -f compose/managed.yml up
package compose
