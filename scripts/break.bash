# What the scripts break-*.sh share; they source it. They work on the cluster of
# scripts/cluster.sh and start one of three nodes if none runs.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cluster=$repo/scripts/cluster.sh
cairn=${CAIRN_BIN:-$repo/bin}/cairn
started=

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# begin starts a cluster unless one runs.
begin() {
  if ! "$cluster" status 2>/dev/null | grep -q leader; then
    say "no cluster runs: starting three nodes"
    "$cluster" up 3
    started=1
  fi
}

# finish stops what begin started.
finish() { [ -z "$started" ] || "$cluster" down; }

# running prints the numbers of the nodes that take connections.
running() {
  local i
  for i in 1 2 3 4 5 6 7 8 9; do
    if (exec 3<>"/dev/tcp/127.0.0.1/70${i}0") 2>/dev/null; then echo "$i"; fi
  done
}

# leader prints the number of the node that leads.
leader() {
  local i found
  for i in $(running); do
    found=$("$cairn" cluster status --node "127.0.0.1:70${i}0" --output json 2>/dev/null |
      sed -n 's/.*"leader":"node-\([1-9]\)[^"]*".*/\1/p')
    if [ -n "$found" ]; then
      echo "$found"
      return 0
    fi
  done
  return 1
}

# others prints the addresses of all nodes but one, as flags of cairn.
others() {
  local i
  for i in $(running); do
    [ "$i" = "$1" ] || printf -- '--node 127.0.0.1:70%s0 ' "$i"
  done
}

# now prints milliseconds.
now() { echo $(($(date +%s%N) / 1000000)); }

# append appends one event through nodes that are given as flags, and prints how
# long it took until it was acknowledged.
append() {
  local before after
  before=$(now)
  "$cairn" append break-demo --type Tried --data '{"by":"hand"}' "$@" >/dev/null || fail "the append failed"
  after=$(now)
  printf 'appended and acknowledged after %d ms\n' $((after - before))
}
