#!/usr/bin/env bash
# Kills the leader of the local cluster (kill -9) again and again, and measures
# how long an append takes that is sent at once. Usage: break-leader.sh [ROUNDS]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/break.bash"
rounds=${1:-3}
begin
killed=
done_() {
  [ -z "$killed" ] || "$cluster" start "$killed" || true
  finish
}
trap done_ EXIT
for round in $(seq "$rounds"); do
  i=$(leader) || fail "nobody leads"
  say "round $round: kill -9 of node $i, which leads"
  killed=$i
  "$cluster" kill "$i"
  # shellcheck disable=SC2046 # several flags
  append $(others "$i")
  "$cluster" start "$i"
  killed=
done
say "look at: term and leader have changed, all nodes have applied the same"
"$cluster" status
