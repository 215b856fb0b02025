#!/usr/bin/env bash
# The S3 servers the integration tests run against, at pinned versions, static
# (they go into images FROM scratch) and built once into the tools folder:
#
#   versitygw   Apache-2.0   conditional writes are free of races; no fsync
#   minio       AGPL-3.0     cross-check only: a separate process in tests,
#                            never linked; archived upstream, so it never moves
#
# A file is named with its version and a plain name links to it, so raising a
# version builds again and an unchanged one costs nothing.
# FIRN_TOOLS moves the folder, FIRN_TOOLS_JOBS bounds the compiler's processes.
# `tools.sh NAME...` builds only those.
set -euo pipefail
versitygw_version=v1.8.0
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c

tools=${FIRN_TOOLS:-$HOME/.cache/firn-tools}
bin=$tools/bin
mkdir -p "$bin"
command -v go >/dev/null || { echo "tools: go is missing: install Go 1.26 or newer" >&2; exit 75; }

# build NAME VERSION PACKAGE
build() {
  local name=$1 version=$2 package=$3
  local file=$bin/$name-$version
  if [ ! -x "$file" ]; then
    local started=$SECONDS work
    work=$(mktemp -d "$tools/build.XXXXXX")
    # GOBIN is private to this run: two runs at once never see half a file.
    if ! (cd "$work" && env -u GOFLAGS CGO_ENABLED=0 GOBIN="$work" GOWORK=off \
        go install ${FIRN_TOOLS_JOBS:+-p "$FIRN_TOOLS_JOBS"} -trimpath -ldflags '-s -w' "$package@$version"); then
      rm -rf "$work"
      echo "tools: $package@$version does not build; see the lines above" >&2
      return 1
    fi
    mv "$work/$name" "$file"
    rm -rf "$work"
    echo "tools: built $name $version in $((SECONDS - started)) s"
  fi
  ln -sfn "$name-$version" "$bin/$name"
}

[ $# -gt 0 ] || set -- versitygw minio
for name in "$@"; do
  case $name in
    versitygw) build versitygw $versitygw_version github.com/versity/versitygw/cmd/versitygw ;;
    minio)     build minio $minio_version github.com/minio/minio ;;
    *) echo "tools: no tool named '$name'; known: versitygw, minio" >&2; exit 64 ;;
  esac
done
echo "tools: ready in $bin"
