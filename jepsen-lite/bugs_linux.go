package main

// bugName is a bug that a binary built with -tags faults can be told to have.
type bugName struct{ name, does string }

func bugs() []bugName {
	return []bugName{
		{"early-ack", "the leader acknowledges what no other node has yet"},
	}
}
