//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "soak: memory and descriptors of lbd are read from /proc, which is Linux's")
	os.Exit(1)
}
