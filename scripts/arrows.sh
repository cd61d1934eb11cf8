#!/usr/bin/env bash
# Checks that the dependency arrows between Cairn's packages point where they
# may, that no package has a name without meaning, and two rules of naming.
# Only what is built into the product counts: a test may stand anywhere.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
module=cairn

# The packages of ours that a package may import. A folder inside a package's
# folder has its rights and may be imported by it. Who is not listed here may
# import nothing of ours, so that a new package is a decision.
allowed() {
  case $1 in
    event | bug) ;;
    datadir) echo snapshot ;; # how files are replaced durably, and what a new log's folder holds
    log) echo event bug ;;
    index | projection | snapshot | client) echo event ;;
    fsm) echo event bug log index projection snapshot ;;
    cluster) echo event bug snapshot ;;
    httpapi) echo event bug ;;
    node) echo event bug log index projection fsm snapshot datadir cluster httpapi client ;; # client: the files of other nodes
    cmd/node) echo event log snapshot cluster node ;;
    sim) echo event bug snapshot fsm cluster node jepsen-lite ;;
    offline) echo client event log index fsm snapshot datadir ;; # the data of a node that is stopped
    backup) echo event log index fsm snapshot datadir client ;;
    cmd/cairn) echo event client datadir log index projection fsm snapshot cluster backup offline ;;
    jepsen-lite) echo event bug client projection ;; # projection: the judge folds the log itself
    examples) echo event client ;;
  esac
}

# owner PACKAGE: the entry of the table above that it falls under.
owner() {
  case $1 in
    cmd/*) echo "$1" | cut -d / -f 1,2 ;;
    *) echo "${1%%/*}" ;;
  esac
}

imports=$(go list -e -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}' ./...)
bad=0
complain() {
  echo "arrows: $*" >&2
  bad=1
}

while read -r from to; do
  from=${from#"$module"/}
  case $to in
    log)
      # memberlist and go-fuse take no other logger.
      [ "$from" = cluster ] || [ "$from" = jepsen-lite/disk ] || complain "$from imports the standard log package; log/slog is used here"
      ;;
    "$module"/*)
      to=${to#"$module"/}
      [ "$(owner "$from")" = "$(owner "$to")" ] && continue
      case " $(allowed "$(owner "$from")" | tr '\n' ' ') " in
        *" $(owner "$to") "*) ;;
        *) complain "$from must not import $to" ;;
      esac
      ;;
  esac
done < <(printf '%s\n' "$imports" | sed '/^$/d')

while read -r path name; do
  case $name in util | utils | common | types | helpers | misc) complain "$path: '$name' says nothing about what is in it" ;; esac
done < <(go list -e -f '{{.ImportPath}} {{.Name}}' ./...)

# log/ holds package eventlog; its import says so.
while read -r line; do
  complain "import it as eventlog: $line"
done < <(grep -rn --include='*.go' "\"$module/log\"" . | grep -v "eventlog \"$module/log\"" || true)

exit $bad
