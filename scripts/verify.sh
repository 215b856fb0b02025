#!/usr/bin/env bash
# The full counts that are too long for every test run. Each part takes at most
# 90 minutes, can be run alone (scripts/verify.sh kills), and appends a row with
# commit, counts and wall time to docs/verification.md.
#
#   kills       400 kill -9 under load, 200 in each durability mode
#   failpoints  110 ends of the process, 10 at each named place, with requests in flight
#   powercuts   20,000 power cuts of the log, 1,000 each of the data dir and of tiering's memory
#   mutants     every rule of docs/SAFETY.md taken out, one at a time: a test must notice
#   flights     2 GiB of flights down to the bucket and back, on a folder and both S3 servers
#   writers     16 racing writers, 100 rounds, for each verb, driver and server
#   commits     10 million offset commits, the topic stays under 64 MiB
#   histories   1,000 random histories of tiering with a failing store
#   million     a partition of a million objects: memory, commit, lookup
#   fuzz        every decoder, a minute each
set -euo pipefail
cd "$(dirname "$0")/.."
export FIRN_TOOLS=${FIRN_TOOLS:-$HOME/.cache/firn-tools} FIRN_TEST_BINARY=$PWD/bin/firn
export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 DOCKER_BUILDKIT=0
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain -- '*.go' go.mod go.sum)" ] || commit="$commit (modified)"
all=(kills failpoints powercuts mutants flights writers commits histories million fuzz)
[ $# -gt 0 ] || set -- "${all[@]}"

# part NAME WHAT COMMAND...: runs, then writes the row, whatever the outcome. Counts and
# seeds are what the tests log with the word verify: in front.
part() {
  local name=$1 what=$2 started=$SECONDS outcome=passed log said
  shift 2
  log=$(mktemp)
  echo "== $name: $what"
  "$@" 2>&1 | tee "$log" | grep -E '^(---|ok|FAIL|panic|fuzz)|_test.go' || true
  grep -q '^ok' "$log" && ! grep -qE '^(FAIL|--- FAIL)|no tests to run' "$log" || outcome=FAILED
  said=$({ grep -o 'verify: .*' "$log" || true; } | sed 's/verify: //' | sort -u | paste -sd ';' | sed 's/;/; /g')
  printf '| %s | %s | %s | %s | %s | %s | %d s |\n' "$(date -u +%F)" "$commit" "$name" "$what" "$said" "$outcome" $((SECONDS - started)) >>docs/verification.md
  rm -f "$log"
  [ $outcome = passed ]
}

for p in "$@"; do
  case $p in
    kills) FIRN_TEST_KILLS=400 part kills "400 kills, 200 in each durability mode" go test -v -count=1 -timeout 60m -run TestKillKeepsAcknowledged ./integration/spine ;;
    failpoints) FIRN_TEST_FAILPOINT_KILLS=10 part failpoints "110 kills, 10 at each of 11 failpoints" go test -v -count=1 -timeout 60m -run TestKillAtEveryFailpoint ./integration/spine ;;
    powercuts) FIRN_TEST_SEEDS=20000 part powercuts "seeds 0 to 19,999" go test -v -count=1 -timeout 80m -run PowerCut $(grep -rl --include='*_test.go' '^func Test.*PowerCut' . | xargs -n1 dirname | sort -u) ;;
    mutants) FIRN_TEST_MUTANTS=1 part mutants "each is noticed" go test -v -count=1 -p 1 -timeout 80m -run TestMutants $(grep -rl --include='*_test.go' mutation.Of . | xargs -n1 dirname | sort -u) ;;
    flights)
      ./scripts/docker.sh >/dev/null && ./scripts/tools.sh >/dev/null
      FIRN_TEST_BYTES=$((2 << 30)) part flights "2 GiB on file, versitygw, MinIO" go test -v -count=1 -timeout 80m -run TestFlights ./integration/replay ;;
    writers)
      ./scripts/docker.sh >/dev/null && ./scripts/tools.sh >/dev/null
      part writers "exactly one winner in each round" go test -v -count=1 -timeout 80m -run 'TestContract|TestACorrectBucketPasses|TestARacyBucketFails' ./objectstore/file ./objectstore/contract ./integration/s3 ;;
    commits) FIRN_TEST_COMMITS=10000000 part commits "10,000,000 commits under 64 MiB" go test -v -count=1 -timeout 80m -run Commits ./group ;;
    histories) FIRN_TEST_SEEDS=1000 part histories "1,000 seeds of tiering with a failing store" go test -v -count=1 -timeout 60m -run TestHistories ./tiering ;;
    million) FIRN_TEST_TIMES=1 part million "1,000,000 objects" go test -v -count=1 -timeout 60m -run TestAMillionObjects ./tiering ;;
    fuzz) part fuzz "60 s for each decoder" ./scripts/fuzz.sh 60 ;;
    *) echo "no part $p; there are: ${all[*]}" >&2; exit 2 ;;
  esac
done
