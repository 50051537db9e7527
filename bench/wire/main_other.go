//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "wire: the load waits through epoll, and what a process costs is read from /proc: both are Linux's")
	os.Exit(1)
}
