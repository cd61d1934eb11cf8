//go:build faults

package bug

import (
	"os"
	"time"
)

// variable is the environment variable that chooses the mistake.
const variable = "CAIRN_FAULT_BUG"

// chosen is read once: a mistake is one of the process.
var chosen = Name(os.Getenv(variable))

// Clock is the clock that ApplyClock looks at, in nanoseconds.
func Clock() int64 { return time.Now().UnixNano() }

// Is reports whether a mistake is built in.
func Is(n Name) bool { return n == chosen }
