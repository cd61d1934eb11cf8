#!/usr/bin/env bash
# Fills the disk of node 3 of a cluster of its own, which keeps its data on a
# small file system in memory: the node says so and ends, the others go on, and
# with more space it starts again and has everything. Needs unshare; not root.
set -euo pipefail
if [ -z "${CAIRN_BREAK_DISK:-}" ]; then # mounts are made where nobody else sees them
  exec env CAIRN_BREAK_DISK=1 unshare -Urm --propagation private "$0" "$@"
fi
. "$(dirname "${BASH_SOURCE[0]}")/break.bash"
CAIRN_DATA=$(mktemp -d)
export CAIRN_DATA
! (exec 3<>/dev/tcp/127.0.0.1/7010) 2>/dev/null || fail "a cluster runs already: stop it first (scripts/cluster.sh down)"
done_() {
  "$cluster" down >/dev/null 2>&1 || true
  umount "$CAIRN_DATA/small" 2>/dev/null || true
  rm -rf "$CAIRN_DATA"
}
trap done_ EXIT
mkdir "$CAIRN_DATA/small"
mount -t tmpfs -o size=200m tmpfs "$CAIRN_DATA/small"
ln -s small/node-3 "$CAIRN_DATA/node-3"
mkdir "$CAIRN_DATA/small/node-3"
say "three nodes; node 3 has a disk of 200 MiB"
CAIRN_SEGMENT_SIZE=1MiB CAIRN_SAVEPOINT_BYTES=1MiB CAIRN_SNAPSHOT_BYTES=4MiB CAIRN_TRAILING_BYTES=1MiB "$cluster" up 3
say "appending until it is full"
for _ in $(seq 60); do
  "$cairn" bench --node 127.0.0.1:7010 --clients 8 --batch 100 --seconds 1 --warmup 0s >/dev/null || true # an append may be under way on node 3
  kill -0 "$(cat "$CAIRN_DATA/node-3.pid")" 2>/dev/null || break
done
! kill -0 "$(cat "$CAIRN_DATA/node-3.pid")" 2>/dev/null || fail "node 3 still runs: its disk did not fill up in a minute"
say "the last line of node 3"
tail -n 1 "$CAIRN_DATA/node-3.log"
say "the others go on"
append --node 127.0.0.1:7010 --node 127.0.0.1:7020
say "more space, and another start"
mount -o remount,size=1g "$CAIRN_DATA/small"
CAIRN_SAVEPOINT_BYTES=1MiB CAIRN_SNAPSHOT_BYTES=4MiB CAIRN_TRAILING_BYTES=1MiB "$cluster" start 3
say "look at: node 3 has applied as much as the others"
"$cluster" status
