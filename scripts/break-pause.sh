#!/usr/bin/env bash
# Lets the leader of the local cluster stand still (SIGSTOP) and shows that the
# others go on, and that it notices when it runs again.
# Usage: break-pause.sh [SECONDS]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/break.bash"
begin
i=
done_() {
  [ -z "$i" ] || "$cluster" resume "$i" >/dev/null 2>&1 || true
  finish
}
trap done_ EXIT
i=$(leader) || fail "nobody leads"
say "node $i leads and stands still for ${1:-5} s; its connections stay open"
"$cluster" pause "$i"
# shellcheck disable=SC2046 # several flags
append $(others "$i")
sleep "${1:-5}"
say "it goes on, and learns that another node leads"
"$cluster" resume "$i"
append --node "127.0.0.1:70${i}0"
say "look at: node $i follows now, and its log is as long as the others'"
"$cluster" status
