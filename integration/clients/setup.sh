#!/usr/bin/env bash
# Gets the unmodified clients that the tests in this folder run, at pinned
# versions: kcat (Debian), confluent-kafka (pip), kafkajs (npm), kafka-clients
# (Maven). franz-go comes with the Go module.
#
#   setup.sh           installs; as root, also the interpreters and kcat by apt
#   setup.sh --check   only says whether all is there; prints nothing then
#
# What is there already, built from the same inputs, is left alone. Everything
# lands under $FIRN_TOOLS/clients (default ~/.cache/firn-tools/clients).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${FIRN_TOOLS:-$HOME/.cache/firn-tools}/clients
check=${1:-}

missing=() packages=()
# needs PACKAGE PROBE...: remembers the Debian package when the probe fails.
needs() {
  local package=$1; shift
  "$@" >/dev/null 2>&1 || { missing+=("$package"); packages+=("$package"); }
}
probe() {
  missing=() packages=()
  needs kcat command -v kcat
  needs python3-venv python3 -c 'import venv, ensurepip'
  needs nodejs command -v node
  needs npm command -v npm
  needs openjdk-17-jdk-headless command -v javac
  needs maven command -v mvn
}

# stamp FILE...: names the inputs by their content, and the interpreters' versions with them.
stamp() { { cat "$@"; python3 --version; node --version; javac -version; } 2>&1 | sha256sum | cut -c1-32; }
fresh() { [[ -e $dest/$1/.stamp && $(<"$dest/$1/.stamp") == "$2" ]]; }

probe
if [[ $check == --check ]]; then
  for p in ${missing[@]+"${missing[@]}"}; do echo "missing: $p"; done
  ((${#missing[@]} == 0)) || exit 1
elif ((${#packages[@]} > 0)); then
  if ((EUID != 0)); then
    echo "missing, and not root to install them: apt-get install ${packages[*]}" >&2
    exit 1
  fi
  echo "apt-get install ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  probe
  ((${#missing[@]} == 0)) || { echo "still missing after apt-get: ${missing[*]}" >&2; exit 1; }
fi

python_stamp=$(stamp "$here/python/requirements.txt")
node_stamp=$(stamp "$here/node/package.json" "$here/node/package-lock.json")
java_stamp=$(stamp "$here/java/pom.xml" "$here/java/Driver.java")

if [[ $check == --check ]]; then
  status=0
  for c in python node java; do
    want=${c}_stamp
    fresh $c "${!want}" || { echo "missing: the $c client; run integration/clients/setup.sh"; status=1; }
  done
  exit $status
fi

mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9

if ! fresh python "$python_stamp"; then
  echo "python: confluent-kafka"
  rm -rf "$dest/python"
  python3 -m venv "$dest/python"
  "$dest/python/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"
  echo "$python_stamp" >"$dest/python/.stamp"
fi

if ! fresh node "$node_stamp"; then
  echo "node: kafkajs and its codecs"
  rm -rf "$dest/node"
  mkdir -p "$dest/node"
  cp "$here/node/package.json" "$here/node/package-lock.json" "$dest/node/"
  (cd "$dest/node" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
  echo "$node_stamp" >"$dest/node/.stamp"
fi

if ! fresh java "$java_stamp"; then
  echo "java: kafka-clients"
  rm -rf "$dest/java"
  mkdir -p "$dest/java/classes"
  mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$dest/java/libs" -DincludeScope=runtime
  javac -nowarn -d "$dest/java/classes" -cp "$dest/java/libs/*" "$here/java/Driver.java"
  echo "$java_stamp" >"$dest/java/.stamp"
fi
