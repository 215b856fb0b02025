#!/usr/bin/env bash
# The CI tier: vet, lint, layering, race-enabled unit tests, integration tests
# with containers. Installs what it needs when root,
# otherwise says exactly what is missing. What takes long to build (S3 servers,
# the container engine) builds beside the unit tests.
set -uo pipefail
cd "$(dirname "$0")/.."
export FIRN_TOOLS=${FIRN_TOOLS:-$HOME/.cache/firn-tools}
export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 DOCKER_BUILDKIT=0
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
export CI=true # nothing is skipped: what a test needs is installed, or the run fails
logs=$(mktemp -d); started=$SECONDS; failed=()
trap 'rm -rf "$logs"' EXIT

say() { printf '== %4ds  %s\n' $((SECONDS - started)) "$*"; }

# step NAME COMMAND...: runs, prints the tail of the output when it fails.
step() {
  local name=$1; shift
  say "$name"
  if ! "$@" >"$logs/$name.log" 2>&1; then
    failed+=("$name"); say "$name FAILED"; tail -n 150 "$logs/$name.log"
  fi
}

# later NAME COMMAND...: starts in the background; wait_for NAME collects it.
declare -A pids
later() { local name=$1; shift; say "$name (in the background)"; "$@" >"$logs/$name.log" 2>&1 & pids[$name]=$!; }
wait_for() {
  local name=$1
  if ! wait "${pids[$name]}"; then failed+=("$name"); say "$name FAILED"; tail -n 60 "$logs/$name.log"; return 1; fi
  say "$name is ready"
}

say "go mod download"; go mod download || exit 1
# One after the other: both may ask apt, which takes one at a time.
later docker bash -c './scripts/docker.sh && ./integration/clients/setup.sh'
later tools nice -n 5 ./scripts/tools.sh

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || { failed+=(gofmt); echo "not gofmt-ed: $unformatted"; }
step build make build
step vet go vet ./...
step lint ./scripts/lint.sh
step layering go test -count=1 ./internal/layering
# tests NAME ARGUMENTS...: go test. Prints a line for each package, all of what failed,
# and fails when a test was skipped.
tests() {
  local name=$1 log=$logs/$1.log; shift
  if ! go test -v "$@" 2>&1 | tee "$log" | { grep --line-buffered -E '^(ok|FAIL)[[:space:]]' || true; }; then
    failed+=("$name")
    grep -E -B 60 '^ *--- FAIL|^panic|^fatal|^WARNING: DATA RACE|\[build failed\]' "$log" | grep -vE '^ *(=== |--- PASS)' | tail -n 400
  fi
  if grep -E '^ *--- SKIP' "$log"; then failed+=("$name: skipped"); fi
}

say "unit tests (race)"
tests unit -race -timeout 15m $(go list ./... | grep -v '/integration')

wait_for docker; wait_for tools
say "integration tests"
# One package at a time: each brings servers of its own, and two cores are few.
FIRN_TEST_BINARY=$PWD/bin/firn tests integration -p 1 -count=1 -timeout 20m ./integration/...

if [ ${#failed[@]} -gt 0 ]; then say "FAILED: ${failed[*]}"; exit 1; fi
say "all green"
