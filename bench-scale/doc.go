// Command bench-scale measures what a long history costs. It loads one log in
// rows, up to 20 million events by default, and takes the same figures at each
// row: appending, stalls while state is saved, memory, restart, snapshots, disk,
// cold reads, conditions, new streams, a full scan, followers. The table says of
// each figure whether it holds its goal.
//
//	make build && go run ./bench-scale
//	go run ./bench-scale -rows 200000,400000 -nodes 3 -figures restart,scan
//
// It starts real cairn-node processes with default settings on free loopback
// ports and speaks HTTP to them. Variables CAIRN_… reach the nodes. A run to 20
// million events needs about 15 GB of disk for each node and takes half an hour
// to an hour; the machine should do nothing else. Written to the folder of -out:
// report.md, report.json, plot.svg and what the nodes print.
//
// The data: events of -size bytes, 100 an append, each append to 100 streams. Of
// ten events one begins a new stream and nine go to streams picked at random, so
// that a log of n events has n/10 streams. Each event has three tags: a customer
// (four streams each), one of 20 regions, and left:1 or right:1. For each row 20
// streams of exactly 100 events are spread evenly from the first event to the
// row. What the figures append themselves comes on top and is less than a tenth;
// the report gives the log's position at each row.
//
// It is a measurement and not a test: goals missed are shown in the table and
// leave the exit status 0. Another status means that something did not work: a
// node ended, an answer was wrong. What was measured until then is written all
// the same, and a figure that fails does not keep the others from being taken
// while the nodes run. The figures that need /proc, or that files
// leave the page cache, are Linux's.
package main
