// Package bug lists mistakes that can be built into a node on purpose, to see
// that the failure tests find them. A binary built without the tag faults has
// none of them: there Is is constant, and the compiler drops what depends on it.
//
// Is may be called from any goroutine.
package bug

// Name is a mistake.
type Name string

// The mistakes, each a line or two where the right thing is done otherwise.
const (
	EarlyAck      Name = "early-ack"
	SkipFsync     Name = "skip-fsync"
	StaleReads    Name = "stale-reads"
	NoConditions  Name = "no-conditions"
	DoubleRetry   Name = "double-retry"
	SkipAtSegment Name = "skip-at-segment"
	SkipAtLive    Name = "skip-at-live"
	ApplyClock    Name = "apply-clock"
	LostTail      Name = "lost-tail"
	NoReadRound   Name = "no-read-round"
	SkipGuards    Name = "skip-guards"
	LostRows      Name = "lost-rows"
	StaleRows     Name = "stale-rows"
	OldForms      Name = "old-forms"
	PastRows      Name = "past-rows"
)

// Description is a mistake in words.
type Description struct {
	Name Name
	Does string
}

// All describes every mistake.
func All() []Description {
	return []Description{
		{EarlyAck, "the leader acknowledges before a majority has the entry"},
		{SkipFsync, "Raft's log is written and never fsynced"},
		{StaleReads, "followers answer linearizable reads from what they have"},
		{NoConditions, "version conditions of appends are not checked"},
		{DoubleRetry, "an append that is sent again is appended again"},
		{SkipAtSegment, "a scan that goes on to the next segment skips its first event"},
		{SkipAtLive, "a follower skips the first event after its history"},
		{ApplyClock, "the state machine takes the time of an event from its own clock"},
		{LostTail, "a node that starts forgets the last entries of Raft's log"},
		{SkipGuards, "guards are not evaluated"},
		{LostRows, "of what a slice folded one record is not written"},
		{StaleRows, "rows are read before they are folded as far as was asked for"},
		{OldForms, "reads give events in the form in which they are stored"},
		{PastRows, "a row of the past lacks the event at its position"},
		{NoReadRound, "a leader answers linearizable reads without asking whether it still leads"},
	}
}
