//go:build !race

package eventlog

const stride = 1
