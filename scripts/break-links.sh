#!/usr/bin/env bash
# Cuts the leader off from the other nodes, and nodes from clients, in network
# namespaces: the nodes of cluster.sh share one loopback device, on which that
# can't be done. Usage: break-links.sh [SECONDS]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/break.bash"
cd "$repo"
out=$(mktemp -d)/report
say "three nodes in namespaces; links are cut and restored for ${1:-20} s"
status=0
go run ./jepsen-lite -nodes 3 -workload append,follow -nemesis partition -time "${1:-20}s" -out "$out" || status=$?
say "look at: appends go on with whoever has a majority, and nobody is told anything wrong"
printf 'the picture of it: %s/index.html\nwhat the nodes said: %s/lab/n*.log\n' "$out" "$out"
exit "$status"
