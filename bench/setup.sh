#!/usr/bin/env bash
# Gets Apache Kafka, pinned in kafka/pom.xml, for the side-by-side runs. Prints the
# folder of its libraries. As root installs Java and Maven when they are missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${FIRN_TOOLS:-$HOME/.cache/firn-tools}/bench
packages=()
command -v java >/dev/null || packages+=(openjdk-17-jdk-headless)
command -v mvn >/dev/null || packages+=(maven)
if ((${#packages[@]} > 0)); then
  if ((EUID != 0)); then
    echo "missing, and not root to install them: apt-get install ${packages[*]}" >&2
    exit 1
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
stamp=$(sha256sum <"$here/kafka/pom.xml" | cut -c1-16)
libs=$dest/kafka-$stamp
if [ ! -d "$libs" ]; then
  mkdir -p "$dest"
  work=$(mktemp -d "$dest/get.XXXXXX")
  echo "bench: fetching Apache Kafka" >&2
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work" -DincludeScope=runtime >&2
  mv "$work" "$libs"
fi
echo "$libs"
