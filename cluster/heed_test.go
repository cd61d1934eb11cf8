package cluster

import (
	"errors"
	"testing"
)

// A node with an empty disk that is no voter of those it meets first has not been
// wiped, even when their log is not born yet; it may be a voter by the time it is.
func TestMembership_HeedsTheFirstWhoKnowsTheServers(t *testing.T) {
	said := func(logID string, voter bool, servers ...string) map[string]answer {
		return map[string]answer{"a": {peerStatus: peerStatus{ID: "a", LogID: logID, Servers: servers, Voter: voter}}}
	}
	for name, c := range map[string]struct {
		answers []map[string]answer
		want    error
	}{
		"joins before the birth": {[]map[string]answer{said("", false), said("", false, "a"), said("log", true, "a", "b")}, nil},
		"joins after it":         {[]map[string]answer{said("log", false, "a"), said("log", true, "a", "b")}, nil},
		"wiped":                  {[]map[string]answer{said("", false), said("log", true, "a", "b")}, ErrWiped},
		"wiped before the birth": {[]map[string]answer{said("", true, "a", "b")}, ErrWiped},
	} {
		t.Run(name, func(t *testing.T) {
			m := bareMembership(t, &memberSM{}, &Config{NodeID: "b"})
			m.empty = true
			var got error
			m.deps.expel = func(err error) { got = err }
			for _, answers := range c.answers {
				m.heed(answers)
			}
			if !errors.Is(got, c.want) {
				t.Errorf("ended with %v, want %v", got, c.want)
			}
		})
	}
}
