#!/usr/bin/env bash
# Fuzzes every decoder in turn, SECONDS each (default 30), and keeps up to 16 of the
# small inputs that reached new code in the package's testdata/fuzz, which every run
# of the tests goes through again.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
cache=$(go env GOCACHE)/fuzz
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -h --include='*_test.go' -o '^func Fuzz[A-Za-z0-9]*' "$dir"/*_test.go | sed 's/func //' | sort -u | while read -r target; do
    echo "fuzz $dir $target for $seconds s"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "$dir" </dev/null
    kept=$dir/testdata/fuzz/$target
    mkdir -p "$kept"
    found=$cache/github.com/firnlog/firn/${dir#./}/$target
    [ -d "$found" ] || continue
    room=$((16 - $(find "$kept" -type f | wc -l)))
    [ $room -le 0 ] || find "$found" -type f -size -4k | sort | head -n $room | xargs -r cp -nt "$kept"
  done
done
echo "ok fuzz"
