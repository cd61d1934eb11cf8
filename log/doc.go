// Package eventlog is the event log: the accepted events of one history, in
// segment files. It is the only truth of a node; everything else that a node
// knows about events can be folded from it again.
//
// It guarantees that an event which it returns is the one that was appended:
// every read checks the record's CRCs, its digest and its position. It
// guarantees that the bytes of all files follow from the frames appended, the
// segment size and the log id alone, so that all nodes hold the same files.
// After Sync(P) has returned, events up to P survive a crash; what stands
// after P may survive, wholly, in part or not at all, and Cut removes it.
//
// It does not fsync in Append: the Raft log holds what is not yet synced. It
// does not decide what is accepted, and it does not lock its directory.
//
// Package fsm calls it. One goroutine at a time may call Append (and before it
// Open, Cut and Create). Sync may be called by another one meanwhile. All
// reading functions may be called by any goroutine at any time between Open and
// Close, except during Cut. A Scanner belongs to one goroutine.
//
// DESIGN.md draws the files and lists what a crash at each step leaves behind.
package eventlog
