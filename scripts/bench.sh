#!/usr/bin/env bash
# firn, Apache Kafka and the floor beside each other, then replays from the bucket.
# Raw JSON on stdout, progress and the tables on stderr.
#
#   bench.sh                      everything, about half an hour
#   bench.sh compare [FLAGS]      bench/compare alone (-only produce-16,fetch-hot; -h)
#   bench.sh replay [FLAGS]       bench/replay alone (-latency 80ms; -h)
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${FIRN_TOOLS:-$HOME/.cache/firn-tools}
part=${1:-all}
shift || true

compare() {
  local libs
  libs=$(./bench/setup.sh)
  CGO_ENABLED=0 go build -trimpath -o bin/bench-floor ./bench/floor
  CGO_ENABLED=0 go build -trimpath -o bin/bench-compare ./bench/compare
  ./bin/bench-compare -kafka "$libs" "$@"
}

replay() {
  ./scripts/tools.sh versitygw >&2
  CGO_ENABLED=0 go build -trimpath -o bin/bench-replay ./bench/replay
  ./bin/bench-replay -versitygw "$tools/bin/versitygw" "$@"
}

case $part in
  all) compare; replay ;;
  compare | replay) "$part" "$@" ;;
  *) echo "bench.sh [compare|replay] [FLAGS]" >&2; exit 64 ;;
esac
