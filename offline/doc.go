// Package offline works on the data folder of a node that is stopped: it checks
// every byte of it, fetches what is damaged of its log from another node, makes
// the state again from the log, and shows what a segment holds.
//
// It guarantees that no node and no second tool is at work in the folder
// meanwhile, by the folder's lock; that Check and Dump change nothing; that
// whatever a crash of Rebuild leaves, the next start of the node or the next
// Rebuild goes on from there with the old state or with the new one; and that
// Repair puts a segment in place only when it is verified and durable. Raft's
// files and the snapshots are never written to.
//
// The command line calls it. Calls for one folder exclude each other, also
// between processes; calls for several may run at the same time.
package offline
