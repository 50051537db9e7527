// Package scripts holds the shell scripts that start, test and measure the
// environments of package compose, and the tests that run them with a docker of
// their own on the PATH.
//
// Invariant: a script that cannot do its work says so before it has changed
// anything, with the command that mends it.
//
//	scripts/deploy.sh sim && scripts/test_env.sh sim
package scripts
