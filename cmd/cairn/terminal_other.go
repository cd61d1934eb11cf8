//go:build !unix

package main

import "os"

// windowWidth returns the number of columns of a terminal, 0 = not known.
func windowWidth(*os.File) int { return 0 }
