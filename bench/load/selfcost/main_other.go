//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "selfcost: the kernel's receive stamps are asked for as Linux has them")
	os.Exit(1)
}
