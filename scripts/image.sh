#!/usr/bin/env bash
# Builds the firn binary, static, and the image around it (deploy/Dockerfile).
#   image.sh [NAME:TAG]     default firn:dev
# FIRN_BINARY takes a binary that is built already. The context is two paths in a
# tar, so neither the repository nor its history goes to the engine.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-firn:dev}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin"
if [ -n "${FIRN_BINARY:-}" ]; then
  cp "$FIRN_BINARY" "$work/bin/firn"
else
  version=$(git describe --tags --always --dirty 2>/dev/null || echo dev)
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$work/bin/firn" ./cmd/firn
fi
cp -R deploy "$work/deploy"
docker build -q -t "$name" -f deploy/Dockerfile - < <(tar -C "$work" -c bin deploy) >/dev/null
echo "image: $name is ready"
