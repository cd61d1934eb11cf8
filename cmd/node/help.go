package main

import (
	"fmt"
	"strings"
)

const helpHead = `cairn-node runs one node of a Cairn cluster: an event store that several
nodes agree on.

Usage:
  cairn-node [flags]

Flags:
`

const helpTail = `
Each flag can also be set in the environment (-advertise-http is
CAIRN_ADVERTISE_HTTP) and in the file (advertise_http: …). A flag wins over the
environment, the environment over the file. SIZE is a number of bytes, or of
KiB, MiB or GiB: 64MiB.

Examples:
  A node alone, for a first look:
    cairn-node

  Three nodes on three machines, the same command on each but for the address:
    cairn-node -data /var/lib/cairn -expect 3 -secret-file /etc/cairn/secret \
      -http 10.0.0.1:7070 -raft 10.0.0.1:7071 -gossip 10.0.0.1:7072 \
      -join 10.0.0.1:7072,10.0.0.2:7072,10.0.0.3:7072

  A fourth node, which becomes a member by itself:
    cairn-node -data /var/lib/cairn -secret-file /etc/cairn/secret \
      -http 10.0.0.4:7070 -raft 10.0.0.4:7071 -gossip 10.0.0.4:7072 \
      -join 10.0.0.1:7072

  In a container, where a node binds every address and others know its name:
    cairn-node -config /etc/cairn/node.yaml    # with, for example:
      http: 0.0.0.0:7070
      advertise_http: cairn-1.example:7070
      join: [cairn-2.example:7072, cairn-3.example:7072]

SIGTERM and SIGINT stop a node cleanly: it hands leadership over, finishes what
it is answering and saves its state. A second one stops it at once.
`

// helpText is what -help prints.
func helpText() string {
	var b strings.Builder
	b.WriteString(helpHead)
	row := func(flag, help string) { fmt.Fprintf(&b, "  %-28s %s\n", flag, help) }
	for _, s := range settings {
		row("-"+s.name+" "+s.value, s.help)
	}
	row("-config FILE", "YAML file with any of the above")
	row("-version", "print the version and exit")
	row("-help", "print this text and exit")
	b.WriteString(helpTail)
	return b.String()
}
