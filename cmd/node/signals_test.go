package main

import (
	"encoding/json"
	"syscall"
)

// pause is SIGSTOP: the process stands still and its connections stay open.
func pause(p *process) { p.signal(syscall.SIGSTOP) }

func resume(p *process) { p.signal(syscall.SIGCONT) }

// containsVersion reports whether a page of a stream says that the stream is at
// this version.
func containsVersion(a answer, version uint64) bool {
	var page struct{ Version uint64 }
	return json.Unmarshal(a.body, &page) == nil && page.Version == version
}
