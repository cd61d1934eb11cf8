#!/usr/bin/env bash
# Runs every fuzz target of the repository for a while. Usage: scripts/fuzz.sh TIME
# A failing input is kept by the Go tool under testdata/fuzz: commit it.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
time=${1:-10s}

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func /:/' | sort)
[ -n "$targets" ] || {
  echo "fuzz: there is no fuzz target" >&2
  exit 1
}
while IFS=: read -r file target; do
  echo "fuzz: $target in $(dirname "$file") for $time"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$(dirname "$file")"
done <<<"$targets"
