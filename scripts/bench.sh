#!/usr/bin/env bash
# Measures a local cluster: three nodes, data on this disk, every append fsynced
# on a majority. Arguments go to `cairn bench` (see bin/cairn bench --help).
# The data lie in the repository, not in /tmp, which may be memory.
set -eu
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cluster=$repo/scripts/cluster.sh
export CAIRN_DATA=$repo/.cairn-bench

finish() {
  trap '' INT TERM
  "$cluster" down >/dev/null
  "$cluster" wipe >/dev/null
}
trap finish EXIT
trap 'exit 130' INT TERM

"$cluster" up 3
nodes=http://127.0.0.1:7010,http://127.0.0.1:7020,http://127.0.0.1:7030
echo
echo "$(uname -sm), $(getconf _NPROCESSORS_ONLN) cores; data on $(df -P "$CAIRN_DATA" | awk 'NR == 2 {print $1}')"
"${CAIRN_BIN:-$repo/bin}/cairn" bench --node "$nodes" "$@"
