// Package httpapi serves Cairn over HTTP/1.1 and HTTP/2 without TLS: appends,
// reads, followers, the cluster's routes and the problem documents they answer
// with.
//
// It guarantees that nothing of a request that is answered with a 4xx or a 503
// was written, that an answer about data names the position it is as of, that
// pages of one reading are as of one position, and that a follower gets each
// matching event once, in order. A slow or dead client is bounded by deadlines,
// and what all clients together may hold in memory by budgets.
//
// It decides nothing about data: appends go to an Appender, reads to a View of
// what this node has applied. These and the other interfaces of store.go are
// all it knows of the rest of a node; package main wires them. A Server may be
// used by any number of goroutines.
package httpapi
