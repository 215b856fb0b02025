#!/usr/bin/env bash
# firn, Apache Kafka and the floor beside each other. Raw JSON on stdout, progress
# and the table on stderr. Arguments go to
# bench/compare (-only produce-16,fetch-hot; -rounds 3; -h).
set -euo pipefail
cd "$(dirname "$0")/.."
libs=$(./bench/setup.sh)
CGO_ENABLED=0 go build -trimpath -o bin/bench-floor ./bench/floor
CGO_ENABLED=0 go build -trimpath -o bin/bench-compare ./bench/compare
exec ./bin/bench-compare -kafka "$libs" "$@"
