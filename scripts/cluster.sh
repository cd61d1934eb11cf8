#!/usr/bin/env bash
# Drives a Cairn cluster on this machine: N processes on loopback, with real
# files and real fsync. Needs bash and Go (or built binaries), nothing else: it
# speaks HTTP through bash's /dev/tcp, so that curl need not be installed.
#
# Written for bash 3.2 and later, on Linux and macOS.
set -eu

usage() {
  cat <<'TEXT'
Usage: scripts/cluster.sh COMMAND

  up [N]      start N nodes (default 3, or as many as there are data of; at
              most 9) and wait until all are ready
  down        stop all nodes
  run [N]     up, then wait; Ctrl-C stops the nodes it started
  status      a table of the nodes

  kill I      SIGKILL node I: it loses what it had only in memory
  stop I      SIGTERM node I: it hands leadership over and saves its state
  start I     start node I again; a new I joins the cluster
  pause I     SIGSTOP node I: it stands still, its connections stay open
  resume I    SIGCONT node I
  logs I [-f] print the log of node I; -f follows it

  wipe        delete the data and logs of a cluster that is down
  wipe I      delete those of node I; it comes back empty, under a new node id

Node I serves HTTP on 127.0.0.1:70I0, Raft on 70I1 and gossip on 70I2.
Environment:
  CAIRN_DATA  folder of the data (default .cairn in the repository)
  CAIRN_BIN   folder of cairn-node and cairn (default bin/, built when stale)
Any other CAIRN_… variable that cairn-node knows reaches the nodes:
  CAIRN_LOG_LEVEL=debug scripts/cluster.sh up
TEXT
}

say() { printf '%s\n' "$*"; }
plural() { if [ "$1" = 1 ]; then echo "1 node"; else echo "$1 nodes"; fi; }
fail() {
  printf 'cluster.sh: %s\n' "$*" >&2
  exit 1
}

most=9
ready_seconds=30 # how long `up` and `start` wait
stop_seconds=15  # how long a node may take for a clean stop

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
data=${CAIRN_DATA:-$repo/.cairn}
case $data in /*) ;; *) data=$PWD/$data ;; esac
bin=${CAIRN_BIN:-$repo/bin}
case $bin in /*) ;; *) bin=$PWD/$bin ;; esac
# What was made here: expect=N, node=I for each node, wiped=I for each disk that
# was thrown away.
made=$data/.made-by-cluster.sh

http() { echo "127.0.0.1:70${1}0"; }
raft() { echo "127.0.0.1:70${1}1"; }
gossip() { echo "127.0.0.1:70${1}2"; }

# --- binaries ---------------------------------------------------------------

# build makes bin/ when it is missing or older than any source.
build() {
  if [ -n "${CAIRN_BIN:-}" ]; then
    [ -x "$bin/cairn-node" ] || fail "there is no cairn-node in CAIRN_BIN=$CAIRN_BIN"
    return 0
  fi
  if [ -x "$bin/cairn-node" ] && [ -x "$bin/cairn" ]; then
    local newer
    newer=$(find "$repo" \( -name .git -o -name bin -o -name '.cairn*' \) -prune -o \
      \( -name '*.go' -o -name go.mod -o -name go.sum -o -name '*.json' -o -name '*.yaml' \) -newer "$bin/cairn-node" -print | head -n 1)
    [ -n "$newer" ] || return 0
  fi
  command -v go >/dev/null 2>&1 || fail "Go is not installed; it is needed to build bin/cairn-node (https://go.dev/dl)"
  say "building bin/cairn-node and bin/cairn"
  (
    # Before || errexit is off: each step must say that it failed.
    cd "$repo" || exit
    version=$(git describe --tags --always --dirty 2>/dev/null || echo devel)
    export CGO_ENABLED=0 # as make build does
    mkdir -p bin &&
      go build -ldflags "-X main.version=$version" -o bin/cairn-node ./cmd/node &&
      go build -ldflags "-X main.version=$version" -o bin/cairn ./cmd/cairn &&
      touch bin/cairn-node bin/cairn
  ) || fail "the build failed"
}

# --- processes --------------------------------------------------------------

# pid_of I prints the process id of node I if it runs. A number in a pid file
# proves nothing, since the system uses numbers again: the process must be a
# cairn-node with this very data folder.
pid_of() {
  local pid
  pid=$(cat "$data/node-$1.pid" 2>/dev/null) || return 1
  case $pid in '' | *[!0-9]*) return 1 ;; esac
  is_ours "$pid" "$1" || return 1
  echo "$pid"
}

is_ours() { # PID I
  local want=$data/node-$2
  if [ -r "/proc/$1/cmdline" ]; then
    tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | {
      read -r program || exit 1
      [ "${program##*/}" = cairn-node ] && grep -Fqx -- "$want"
    }
  else
    ps -o command= -p "$1" 2>/dev/null | grep -F -- "cairn-node -data $want " >/dev/null
  fi
}

# paused PID: it is there but stands still.
paused() {
  if [ -r "/proc/$1/stat" ]; then
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in T* | t*) return 0 ;; esac
    return 1
  fi
  case $(ps -o state= -p "$1" 2>/dev/null) in T*) return 0 ;; esac
  return 1
}

# answers HOST:PORT: something accepts connections there.
answers() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

# holder HOST:PORT says who has it: most often a node of another cluster here.
holder() {
  local line
  for line in /proc/[0-9]*/cmdline; do
    line=$(tr '\0' ' ' <"$line" 2>/dev/null) || continue
    case $line in *cairn-node\ -data\ *" $1 "*)
      line=${line#* -data }
      echo "the cairn-node with data in ${line%% -http *}"
      return 0
      ;;
    esac
  done
  echo "another program"
}

# get I PATH prints the body of node I's answer and succeeds on status 200. It
# gives up after a silence of two seconds, so that a paused node holds nobody.
get() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/70${1}0"
    printf 'GET %s HTTP/1.0\r\nHost: %s\r\nAccept: application/json\r\n\r\n' "$2" "$(http "$1")" >&3
    IFS= read -r -t 2 status <&3 || exit 1
    while IFS= read -r -t 2 line <&3; do
      [ "$line" != $'\r' ] || break
    done
    while IFS= read -r -t 2 line <&3 || [ -n "$line" ]; do
      printf '%s\n' "$line"
    done
    case $status in HTTP/1.?\ 200*) exit 0 ;; esac
    exit 1
  ) 2>/dev/null
}

ready() { get "$1" /readyz >/dev/null; }

# why_not I: what /readyz says, for people.
why_not() {
  local answer
  answer=$(get "$1" /readyz | tr -d '\n' || true)
  answer=${answer#*\"detail\":\"}
  answer=${answer%%\"*}
  echo "${answer:-it does not answer}"
}

# --- what was made here -----------------------------------------------------

# nodes prints the numbers of the nodes that this script has made.
nodes() { sed -n 's/^node=//p' "$made" 2>/dev/null | sort -n; }

remember() { # I
  grep -qx "node=$1" "$made" 2>/dev/null || echo "node=$1" >>"$made"
}

# id_of I: a node whose disk was wiped has forgotten its votes, so that it must
# not come back under its old id.
id_of() {
  local wiped
  wiped=$(grep -cx "wiped=$1" "$made" || true)
  if [ "$wiped" = 0 ]; then echo "node-$1"; else echo "node-$1.$((wiped + 1))"; fi
}

expected() { sed -n 's/^expect=//p' "$made" 2>/dev/null; }

need_node() { # checks that $1 is the number of a node
  case ${1:-} in
    [1-9]) ;;
    '') fail "which node? for example: cluster.sh $command 2" ;;
    *) fail "'$1' is not the number of a node (1 to $most)" ;;
  esac
}

need_running() {
  need_node "${1:-}"
  pid=$(pid_of "$1") || fail "node $1 is not running (cluster.sh status)"
}

# --- starting ---------------------------------------------------------------

# launch I starts node I without waiting for it.
launch() {
  local i=$1 j join='' port pid
  for port in "$(http "$i")" "$(raft "$i")" "$(gossip "$i")"; do
    if answers "$port"; then
      fail "$port is taken by $(holder "$port"), so node $i can't start"
    fi
  done
  for j in $( (nodes; seq 1 "$(expected)") | sort -nu); do
    [ "$j" = "$i" ] || join=$join${join:+,}$(gossip "$j")
  done
  remember "$i"
  printf -- '--- cluster.sh starts node %s, %s\n' "$i" "$(date)" >>"$data/node-$i.log"
  # Job control gives the node a process group of its own: Ctrl-C at the
  # terminal is for the script, which stops the nodes in its own way.
  set -m
  nohup "$bin/cairn-node" -data "$data/node-$i" -http "$(http "$i")" -raft "$(raft "$i")" -gossip "$(gossip "$i")" \
    -expect "$(expected)" -join "$join" -id "$(id_of "$i")" >>"$data/node-$i.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$data/node-$i.pid"
  set +m
  disown "$pid" 2>/dev/null || true
  # Until the new process has become cairn-node it is not known as ours.
  for j in 1 2 3 4 5 6 7 8 9 10; do
    if is_ours "$pid" "$i" || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.05
  done
}

# last_lines I: the end of its log since its last start, for an error message.
last_lines() {
  awk '/^--- cluster.sh/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' "$data/node-$1.log" |
    tail -n 8 | cut -c 1-400 | sed 's/^/    /'
}

# wait_ready I…: all at once; prints the reason and fails if one is not ready
# in time or has ended.
wait_ready() {
  local i left="$*" still end=$((SECONDS + ready_seconds))
  while [ -n "$left" ]; do
    still=
    for i in $left; do
      ready "$i" || still="$still $i"
    done
    for i in $still; do
      if ! pid_of "$i" >/dev/null; then
        say "node $i has ended. The end of $data/node-$i.log:" >&2
        last_lines "$i" >&2
        return 1
      fi
      if [ $SECONDS -ge $end ]; then
        say "node $i is not ready after $ready_seconds s: $(why_not "$i")" >&2
        say "The end of $data/node-$i.log:" >&2
        last_lines "$i" >&2
        return 1
      fi
    done
    left=$still
    [ -z "$left" ] || sleep 0.1
  done
}

# bring_up N starts the nodes 1 to N that do not run, waits for all, and puts
# their numbers into $started. On failure it stops those again.
bring_up() {
  local i n=$1 all=''
  started=
  build
  mkdir -p "$data"
  [ -n "$(expected)" ] || echo "expect=$n" >>"$made"
  [ -n "$(running_nodes)" ] || say "starting $(plural "$n"), data in $data"
  for i in $(seq 1 "$n"); do
    all="$all $i"
    if pid=$(pid_of "$i"); then
      paused "$pid" && fail "node $i is paused (cluster.sh resume $i)"
      continue
    fi
    ( launch "$i" ) || {
      halt $started
      exit 1
    }
    started="$started $i"
  done
  [ -z "$started" ] || wait_ready $all || {
    halt $started
    fail "the cluster did not come up; what was started is stopped again"
  }
}

# how_many [N]: N, or what there is data of, or 3.
how_many() {
  local n=${1:-}
  if [ -z "$n" ]; then
    n=$(nodes | tail -n 1)
    n=${n:-3}
  fi
  case $n in
    [1-9]) echo "$n" ;;
    *) fail "'$n' is not a number of nodes (1 to $most)" ;;
  esac
}

urls() {
  local i
  for i in $(nodes); do
    pid_of "$i" >/dev/null && say "  node $i  http://$(http "$i")  ($data/node-$i.log)"
  done
  return 0
}

# --- stopping ---------------------------------------------------------------

# halt I… stops nodes cleanly, all at once, and kills those that do not end.
halt() {
  local i pid pids='' end=$((SECONDS + stop_seconds))
  for i in "$@"; do
    if pid=$(pid_of "$i"); then
      kill -TERM "$pid" 2>/dev/null || true
      kill -CONT "$pid" 2>/dev/null || true
    fi
  done
  for i in "$@"; do
    while pid=$(pid_of "$i"); do
      if [ $SECONDS -ge $end ]; then
        say "node $i did not stop within $stop_seconds s, so it is killed" >&2
        kill -KILL "$pid" 2>/dev/null || true
        end=$((SECONDS + 5))
      fi
      sleep 0.05
    done
    rm -f "$data/node-$i.pid"
  done
}

# --- commands ---------------------------------------------------------------

cmd_up() {
  local n
  n=$(how_many "${1:-}") || exit 1
  bring_up "$n"
  if [ -z "$started" ]; then
    say "already up:"
  else
    say "up and ready:"
  fi
  urls
}

cmd_down() {
  local running
  running=$(running_nodes)
  halt $(nodes)
  if [ -n "$running" ]; then say "down: stopped node$running"; else say "down: nothing was running"; fi
}

running_nodes() {
  local i
  for i in $(nodes); do
    if pid_of "$i" >/dev/null; then printf ' %s' "$i"; fi
  done
}

cmd_run() {
  local n
  n=$(how_many "${1:-}") || exit 1
  if [ -n "$(running_nodes)" ]; then
    fail "a cluster with these data is running already: node$(running_nodes). Stop it with: scripts/cluster.sh down"
  fi
  # Only from here on is there something to stop. The flag keeps a second
  # Ctrl-C from cutting the clean stop short.
  trap stop_run INT TERM HUP
  bring_up "$n"
  say ""
  say "Cairn is up, $(plural "$n") with one log:"
  urls
  say ""
  say "Try, in another terminal:"
  say ""
  try_lines "$n"
  say ""
  say "Ctrl-C stops the cluster; started again, it goes on with the same data."
  watch_nodes
}

# try_lines N: append on one node, read and follow on others. A follower has no
# end, so -N shows each event at once.
try_lines() {
  local second=1 third=1
  [ "$1" -lt 2 ] || second=2
  [ "$1" -lt 3 ] || third=3
  say "  # append an event, on node 1"
  say "  curl -X POST http://$(http 1)/v1/streams/account-42/events -H 'Content-Type: application/json' -d '{\"type\":\"FundsDeposited\",\"data\":{\"amount\":100}}'"
  say "  # read it back, on node $second"
  say "  curl http://$(http $second)/v1/streams/account-42/events"
  say "  # follow the whole log, on node $third; append again to see it grow"
  say "  curl -N 'http://$(http $third)/v1/events?follow=true'"
  if ! command -v curl >/dev/null 2>&1; then
    say ""
    say "(curl is not installed here; bin/cairn append, read and tail do the same.)"
  fi
}

stop_run() {
  trap '' INT TERM HUP
  say ""
  say "stopping"
  halt $(nodes)
  say "stopped; the data stay in $data"
  exit 0
}

# watch_nodes waits until no node runs, and says when one comes or goes.
watch_nodes() {
  local before now
  before=$(running_nodes)
  while [ -n "$before" ]; do
    sleep 1 &
    wait $! || true
    now=$(running_nodes)
    [ "$now" = "$before" ] || say "running now:${now:- none}"
    before=$now
  done
  say "every node has stopped; the data stay in $data"
}

# member_of ID LIST: the member object with that id from /v1/cluster.
member_of() { printf '%s' "$2" | tr '{' '\n' | grep -F "\"id\":\"$1\"" || true; }

field() { printf '%s' "$2" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

cmd_status() {
  local i pid state role='' applied='' cluster='' member leader any=''
  for i in $(nodes); do
    any=yes
    if pid=$(pid_of "$i") && ! paused "$pid"; then
      if cluster=$(get "$i" /v1/cluster | tr -d '\n ') && [ -n "$cluster" ]; then break; fi
    fi
    cluster=
  done
  [ -n "$any" ] || {
    say "no cluster was made in $data yet (cluster.sh up)"
    return 0
  }
  printf '%-5s %-8s %-9s %-10s %-9s %s\n' NODE PID STATE ROLE APPLIED URL
  for i in $(nodes); do
    role=- applied=-
    if ! pid=$(pid_of "$i"); then
      pid=- state=stopped
    elif paused "$pid"; then
      state=paused
    elif ready "$i"; then
      state=ready
    else
      state='not ready'
    fi
    member=$(member_of "$(id_of "$i")" "$cluster")
    if [ -n "$member" ]; then
      role=$(field role "$member")
      if [ "$state" = ready ]; then applied=$(field applied "$member"); fi
    fi
    printf '%-5s %-8s %-9s %-10s %-9s %s\n' "$i" "$pid" "$state" "${role:--}" "${applied:--}" "http://$(http "$i")"
  done
  if [ -n "$cluster" ]; then
    leader=$(field leader "$cluster")
    say "log $(field log "$cluster"), leader ${leader:-unknown}, term $(field term "$cluster")"
  elif [ -n "$(running_nodes)" ]; then
    say "no node that runs can tell of the cluster"
  fi
}

cmd_start() {
  local i=${1:-}
  need_node "$i"
  if pid_of "$i" >/dev/null; then
    say "node $i is running already"
    return 0
  fi
  [ -n "$(expected)" ] || fail "there is no cluster yet (cluster.sh up)"
  build
  launch "$i"
  wait_ready "$i" || {
    halt "$i"
    fail "node $i did not come up; it is stopped again"
  }
  say "node $i is ready: http://$(http "$i")"
}

cmd_stop() {
  need_running "${1:-}"
  halt "$1"
  say "node $1 has stopped"
}

cmd_kill() {
  need_running "${1:-}"
  kill -KILL "$pid"
  while pid_of "$1" >/dev/null; do sleep 0.02; done
  rm -f "$data/node-$1.pid"
  say "node $1 was killed"
}

cmd_pause() {
  need_running "${1:-}"
  kill -STOP "$pid"
  say "node $1 stands still (cluster.sh resume $1)"
}

cmd_resume() {
  need_running "${1:-}"
  kill -CONT "$pid"
  say "node $1 runs again"
}

cmd_logs() {
  need_node "${1:-}"
  local log=$data/node-$1.log
  [ -f "$log" ] || fail "node $1 has no log yet ($log)"
  case ${2:-} in
    '') cat "$log" ;;
    -f) exec tail -n 50 -f "$log" ;;
    *) fail "logs takes a node and -f, not '$2'" ;;
  esac
}

# cmd_wipe deletes what this script made, by name, and the folder if nothing
# else is in it.
cmd_wipe() {
  local i
  [ -f "$made" ] || {
    say "nothing to wipe in $data"
    return 0
  }
  if [ $# -eq 1 ]; then
    need_node "$1"
    ! pid_of "$1" >/dev/null || fail "node $1 is running. First: cluster.sh stop $1"
    wipe_node "$1"
    echo "wiped=$1" >>"$made"
    say "wiped node $1; it will come back as $(id_of "$1")"
    return 0
  fi
  [ -z "$(running_nodes)" ] || fail "still running: node$(running_nodes). First: cluster.sh down"
  for i in $(nodes); do
    wipe_node "$i"
  done
  rm -f "$made"
  rmdir "$data" 2>/dev/null || true
  say "wiped $data"
}

wipe_node() { rm -rf "$data/node-$1" "$data/node-$1.new" "$data/node-$1.log" "$data/node-$1.pid"; }

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
  up | run | start | stop | kill | pause | resume | wipe) [ $# -le 1 ] || fail "too many arguments for $command; see cluster.sh help" ;;
  down | status) [ $# -eq 0 ] || fail "$command takes no arguments; see cluster.sh help" ;;
esac
case $command in
  up | down | run | status | start | stop | kill | pause | resume | logs | wipe) "cmd_$command" "$@" ;;
  help | -h | --help) usage ;;
  *)
    printf 'cluster.sh: there is no command "%s"\n\n' "$command" >&2
    usage >&2
    exit 2
    ;;
esac
