#!/usr/bin/env bash
# Goes through the README's first screen as a user would: `make run`, the three
# printed curl lines, Ctrl-C, and `make run` again on the same data. Then every
# command of cluster.sh, and the README's on backups, checks and repairs.
# Needs curl. Uses the ports of the nodes 1 to 3.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export CAIRN_DATA=$repo/.cairn-smoke
unset CAIRN_BIN
out=$CAIRN_DATA.out
kept=$CAIRN_DATA.kept # a backup, and what is restored from it
runner=

say() { printf 'smoke: %s\n' "$*"; }
fail() {
  say "FAILED: $*" >&2
  echo "--- make run said:" >&2
  cat "$out" >&2 2>/dev/null || true
  for log in "$CAIRN_DATA"/node-*.log; do
    echo "--- the end of $log:" >&2
    tail -n 20 "$log" >&2 2>/dev/null || true
  done
  exit 1
}

finish() {
  set +e
  "$repo/scripts/cluster.sh" down >/dev/null 2>&1
  [ -z "$runner" ] || wait "$runner" 2>/dev/null
  "$repo/scripts/cluster.sh" wipe >/dev/null 2>&1
  rm -rf "$out" "$kept"
}
trap finish EXIT

# run_make starts `make run` as a job with a process group of its own, so that
# it can be given Ctrl-C like a terminal does, and waits for its first screen.
run_make() {
  local end=$((SECONDS + 240)) # it may have to build
  set -m
  make -C "$repo" --no-print-directory run >"$out" 2>&1 </dev/null &
  runner=$!
  set +m
  until grep -q 'Ctrl-C stops the cluster' "$out"; do
    kill -0 "$runner" 2>/dev/null || fail "make run has ended"
    [ $SECONDS -lt $end ] || fail "make run is not ready"
    sleep 0.2
  done
}

# ctrl_c sends SIGINT to everything that a terminal would send it to. make
# itself then ends with status 130, whatever the script below it does.
ctrl_c() {
  local status=0
  kill -INT -- "-$runner"
  wait "$runner" || status=$?
  runner=
  [ $status = 0 ] || [ $status = 130 ] || fail "make run ended with status $status after Ctrl-C"
  grep -q '^stopped' "$out" || fail "it does not say that it has stopped"
  for port in 7010 7020 7030; do
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "something still answers on port $port"
  done
}

# printed N: the N-th curl line of the first screen.
printed() { sed -n 's/^ *\(curl .*\)/\1/p' "$out" | sed -n "$1p"; }

# expect TEXT in the output of a printed line, which is run as it stands.
expect() {
  local line=$1 want=$2 got
  [ -n "$line" ] || fail "make run prints too few curl lines"
  say "\$ $line"
  got=$(timeout 5 bash -c "$line" 2>/dev/null) || [ $? -eq 124 ] || fail "that line fails: $got"
  printf '%s\n' "$got" | cut -c 1-300
  case $got in *"$want"*) ;; *) fail "no $want in that" ;; esac
}

# state I WANTED: what `cluster.sh status` says of node I.
state() {
  "$repo/scripts/cluster.sh" status >"$out"
  grep -q "^$1 .* $2 " "$out" || fail "node $1 is not $2"
}

# drive COMMAND…: a command of cluster.sh that must succeed.
drive() {
  say "\$ cluster.sh $*"
  "$repo/scripts/cluster.sh" "$@" >"$out" 2>&1 || fail "cluster.sh $* ended with status $?"
}

# readme COMMAND WANTED: runs the README's line with a command of bin/cairn, on
# this cluster's folders.
readme() {
  local line
  line=$(sed -n "s|^\(bin/cairn $1 [^#]*[^# ]\).*|\1|p" "$repo/README.md" | head -n 1)
  [ -n "$line" ] || fail "the README has no line with cairn $1"
  line=${line//.cairn\//$CAIRN_DATA/}
  line=${line//.\//$kept/}
  say "\$ $line"
  (cd "$repo" && timeout 20 bash -c "$line -o text") >"$out" 2>&1 || fail "that line fails"
  grep -q -e "$2" "$out" || fail "no $2 in that"
}

command -v curl >/dev/null || fail "curl is not installed"
rm -rf "$out" "$kept"
"$repo/scripts/cluster.sh" wipe >/dev/null

say "make run"
run_make
cat "$out"
expect "$(printed 1)" '"version":1'
expect "$(printed 2)" '"FundsDeposited"'
expect "$(printed 3)" '"account-42"'
say "Ctrl-C"
ctrl_c

say "make run, again"
run_make
expect "$(printed 2)" '"FundsDeposited"'
expect "$(printed 1)" '"version":2'
expect "$(printed 2)" '"version":2'
say "Ctrl-C"
ctrl_c

cd / # it runs from any folder
drive up
drive up
grep -q '^already up' "$out" || fail "a second up does not say so"
drive kill 1
state 1 stopped
drive start 1
state 1 ready
drive pause 2
state 2 paused
drive resume 2
drive stop 3
state 3 stopped
drive start 3
drive start 4
state 4 ready
drive logs 4
grep -q 'node is up' "$out" || fail "logs 4 does not show its log"
mkdir "$kept"
readme backup 'up to position'
drive stop 1
readme check 'node-1 is whole'
readme repair '0 segments repaired'
readme rebuild 'the state is rebuilt'
readme dump 'FundsDeposited'
drive start 1
drive down
readme restore 'of the new log'
"$repo/bin/cairn" check --data "$kept/restored" -o text >"$out" 2>&1 || fail "what was restored is not whole"
# The brackets keep grep from finding its own command line.
! grep -ls -- "$CAIRN_DATA[/]node" /proc/[0-9]*/cmdline || fail "down left a process behind"
drive wipe
[ ! -e "$CAIRN_DATA" ] || fail "wipe left $CAIRN_DATA behind"
say "ok"
