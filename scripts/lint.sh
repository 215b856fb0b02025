#!/usr/bin/env bash
# Static analysis beyond go vet, at a pinned version, built once into the tools folder.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v0.8.2
tools=${FIRN_TOOLS:-$HOME/.cache/firn-tools}
bin=$tools/bin/staticcheck-$version
if [ ! -x "$bin" ]; then
  mkdir -p "$tools/bin"
  GOBIN=$tools/bin go install honnef.co/go/tools/cmd/staticcheck@$version
  mv "$tools/bin/staticcheck" "$bin"
fi
exec "$bin" ./...
