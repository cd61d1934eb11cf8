#!/usr/bin/env bash
# Restarts the nodes of the local cluster one after the other while clients
# append, as for an upgrade. A node that stops hands leadership over first.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/break.bash"
begin
load=
done_() {
  [ -z "$load" ] || kill "$load" 2>/dev/null || true
  finish
}
trap done_ EXIT
lines=$(mktemp)
say "150,000 appends to 50 streams, while nodes 1, 2 and 3 are restarted in turn"
for n in $(seq 150000); do
  echo "{\"stream\":\"roll-$((n % 50))\",\"type\":\"Tried\",\"data\":$n,\"id\":\"roll-$$-$n\"}"
done >"$lines"
"$cairn" import "$lines" --node 127.0.0.1:7010 --node 127.0.0.1:7020 --node 127.0.0.1:7030 &
load=$!
for i in 1 2 3; do
  "$cluster" stop "$i"
  "$cluster" start "$i"
done
wait "$load" || fail "an append failed"
load=
rm -f "$lines"
say "look at: no append failed, and all nodes have applied the same"
"$cluster" status
