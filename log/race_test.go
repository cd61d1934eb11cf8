//go:build race

package eventlog

// stride is which of many alike cases are tried: the race detector is slow, and
// these have one goroutine.
const stride = 31
