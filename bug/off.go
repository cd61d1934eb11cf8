//go:build !faults

package bug

// Clock is not there.
func Clock() int64 { return 0 }

// Is reports whether a mistake is built in: none is.
func Is(Name) bool { return false }
