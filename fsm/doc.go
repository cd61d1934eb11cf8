// Package fsm is Cairn's deterministic state machine. It applies Raft entries
// to the event log and its index, decides every condition, and keeps both
// durable by savepoints that never stop it.
//
// It guarantees that two machines which were given the same entries hold the
// same bytes in their logs and give the same answers, wherever their
// savepoints, restarts and batch borders fell. It does not make an entry
// durable itself: until a savepoint covers it, the Raft log must hold it, and
// entries at or before a machine's Durable index may be given again and are
// passed over.
//
// Apply, ApplyBatch, Snapshot and Restore are called by Raft's one state
// machine goroutine; everything else may be called from any goroutine. No
// clock, random number, goroutine or map order decides anything here.
package fsm
