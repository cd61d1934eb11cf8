// Package lab is where the harness runs its nodes: real processes, each in a
// network namespace of its own, with a network between them that the harness is
// the middle of.
//
// [Enter] moves the program into namespaces of its own, so that nothing it does
// is seen outside and nothing of it outlives it, however it ends: with the first
// process of a process namespace the kernel kills all the others, and mounts,
// interfaces and network namespaces go with their last user. [New] then builds
// the network, and a [Node] starts, kills and pauses one process.
//
// Every namespace has one Ethernet device, the near end of a veth pair. The far
// end is in the harness's namespace, where nobody but a packet socket listens:
// the harness itself carries each packet from one pair to another, or not. So a
// cut, a loss and a delay are the same few lines for every pair of machines and
// both directions apart, they hold from the next packet on, and each packet that
// did not arrive is counted. It does without bridge, packet filter and traffic
// control, thus without netem, which not every kernel has, and without commands
// that would have to be installed. A cut is what a pulled cable is: connections
// stay open and hang, and no sender is told.
//
// What it is not: a measure of a network's speed. A small request and its answer
// take about 0.2 ms through it, against 0.05 ms on loopback, and most of the
// difference is time of the harness's processors.
//
// Only Linux has what it takes; elsewhere the package is no more than its
// shapes of partitions. All methods may be called concurrently.
package lab
