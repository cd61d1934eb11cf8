// Package cluster makes several nodes agree on one log: Raft, the members that
// take part in it, appends proposed in batches, and reads that are never stale.
//
// What it guarantees. An append for which Propose returned an outcome is
// fsynced on a majority and applied here or on the leader. After an error other
// than *UnknownError nothing was written. When ReadIndex returned nil, the
// local state machine has applied everything that was acknowledged anywhere
// before the call.
//
// What it does not. It never decides about an append: the state machine does,
// in log order. It does not retry an append whose outcome is unknown.
//
// When the log or the term can no longer be trusted to be on disk, or a
// committed entry can't be applied, Config.OnFatal is called, once: the process
// must end at once and must not go on serving. From then on nothing more is
// stored or applied. OnFatal may be called on Raft's own goroutine; it must not
// wait for this package.
//
// cmd/node builds a Node from a Config, a state machine and a snapshot store;
// httpapi calls its methods, all of which may be called concurrently. Close
// joins every goroutine that Start started.
package cluster
