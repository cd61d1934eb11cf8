#!/usr/bin/env bash
# Builds every mistake of package bug into the nodes, one after the other, and
# checks that the run is called invalid. Takes a quarter of an hour.
# Arguments: names of mistakes, to try only these.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p bin
go build -o bin/jepsen-lite ./jepsen-lite
out=$(mktemp -d)
failed=0

# try NAME FLAGS…: a run that must be invalid.
try() {
  local name=$1 status=0 begun=$SECONDS
  shift
  bin/jepsen-lite -bug "$name" -seed 1 -out "$out/$name" "$@" >"$out/$name.txt" 2>&1 || status=$?
  printf '%-16s %-42s %3d s  ' "$name" "$*" $((SECONDS - begun))
  if [ "$status" != 1 ]; then
    echo "NOT FOUND (status $status), see $out/$name.txt"
    failed=1
    return
  fi
  # What found it, but for "meaning": so short a run may not mean much.
  sed -n 's/^INVALID  \(.*[^ ]\)  *[0-9,]* problem.*/\1/p' "$out/$name.txt" | grep -v meaning | paste -sd, -
}

wanted() { [ $# = 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }

while read -r name flags; do
  # shellcheck disable=SC2086 # several flags
  if wanted "$name" "$@"; then try "$name" $flags </dev/null; fi
done <<'TRIES'
early-ack -nodes 5 -nemesis partition -time 45s
skip-fsync -nodes 3 -nemesis power -time 30s
stale-reads -nodes 3 -nemesis slow -time 15s
no-conditions -nodes 3 -nemesis none -time 10s
double-retry -nodes 3 -nemesis none -time 10s
skip-at-segment -nodes 3 -nemesis none -time 15s
skip-at-live -nodes 3 -nemesis none -time 10s
apply-clock -nodes 3 -nemesis none -time 10s
lost-tail -nodes 3 -nemesis kill -time 30s
no-read-round -nodes 5 -nemesis usurp -time 30s
skip-guards -nodes 3 -workload bank-guarded,projection,schema-change-under-load,follow -nemesis none -time 10s
lost-rows -nodes 3 -workload bank-guarded,projection,schema-change-under-load,follow -nemesis none -time 10s
stale-rows -nodes 3 -workload bank-guarded,projection,schema-change-under-load,follow -nemesis none -time 10s
past-rows -nodes 3 -workload bank-guarded,projection,schema-change-under-load,follow -nemesis none -time 10s
old-forms -nodes 3 -workload bank-guarded,projection,schema-change-under-load,follow -nemesis none -time 10s
TRIES
exit $failed
