#!/usr/bin/env bash
# Checks how the code reads and hangs together. Usage: scripts/lint.sh STATICCHECK
# where STATICCHECK is package@version; `make lint` gives it.
# All checks run; the exit status says whether one of them complained.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
failed=0

step() { # NAME COMMAND…
  local name=$1
  shift
  if "$@"; then
    printf 'lint: %-12s ok\n' "$name"
  else
    printf 'lint: %-12s FAILED\n' "$name" >&2
    failed=1
  fi
}

formatted() {
  local files
  files=$(find . -name .git -prune -o -name '*.go' -print0 | xargs -0 gofmt -l)
  [ -z "$files" ] || {
    printf 'not in the form of gofmt -w:\n%s\n' "$files" >&2
    return 1
  }
}

scripts_parse() {
  local script bad=0
  for script in scripts/*.sh scripts/*.bash .ci/run; do
    bash -n "$script" || bad=1
    [ -x "$script" ] || [[ $script == *.bash ]] || {
      echo "$script is not executable" >&2
      bad=1
    }
  done
  return $bad
}

step gofmt formatted
step vet go vet ./...
step staticcheck go run "$1" ./...
step arrows scripts/arrows.sh
step scripts scripts_parse
exit $failed
