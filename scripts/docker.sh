#!/usr/bin/env bash
# Makes a container engine available to the integration tests.
#
# A daemon that answers is used as it is. Otherwise, as root: install Debian's
# docker.io when it is missing, start dockerd, and prove with an image FROM
# scratch that a container really runs. Exit 0 with "docker: ready ...", or 75
# with one line that says what is missing and what to do.
#
#   DOCKERD_ARGS    more flags for a daemon this script starts
#   DOCKERD_LOG     where its log goes (default $TMPDIR/firn-dockerd.log)
set -u
tmp=${TMPDIR:-/tmp}
log=${DOCKERD_LOG:-$tmp/firn-dockerd.log}
started_by_us=

missing() {
  echo "docker: unavailable: $*" >&2
  [ -n "$started_by_us" ] && [ -f "$log" ] && grep -E 'level=(error|fatal)|failed' "$log" | tail -n 5 >&2
  exit 75
}
answers() { timeout 10 docker info --format '{{.ServerVersion}} {{.Driver}} cgroup{{.CgroupVersion}}' 2>/dev/null | grep -E '^[0-9]'; }

install_engine() {
  command -v apt-get >/dev/null || missing "no dockerd and no apt-get; install Docker Engine 20.10 or newer, then run this again"
  export DEBIAN_FRONTEND=noninteractive
  # Without an init the package must not try to start services itself.
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && ours=1
  fi
  local failed=
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io iptables; } >"$tmp/firn-docker-apt.log" 2>&1 || failed=1
  [ -z "$ours" ] || rm -f "$policy"
  [ -z "$failed" ] || missing "apt could not install docker.io: $(tail -n 1 "$tmp/firn-docker-apt.log")"
  command -v dockerd >/dev/null || missing "docker.io is installed but brought no dockerd"
}

start_engine() {
  if ! grep -qE ' cgroup2? ' /proc/mounts; then
    mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || missing "no cgroup file system and mounting one is refused; run in a privileged container or on a host"
  fi
  unshare -m true 2>/dev/null || missing "unshare is refused (no CAP_SYS_ADMIN); run in a privileged container or on a host"
  local args=(${DOCKERD_ARGS:-})
  if ! iptables -t nat -L -n >/dev/null 2>&1; then
    if command -v iptables-legacy >/dev/null && iptables-legacy -t nat -L -n >/dev/null 2>&1; then
      update-alternatives --set iptables "$(command -v iptables-legacy)" >/dev/null
    else
      # Published ports then go through docker-proxy alone, which is enough.
      args+=(--iptables=false --ip-masq=false)
    fi
  fi
  # overlay on overlay is refused by the kernel.
  df -T /var/lib 2>/dev/null | grep -q overlay && args+=(--storage-driver=vfs)
  local pidfile=/var/run/docker.pid
  [ -e $pidfile ] && ! kill -0 "$(cat $pidfile)" 2>/dev/null && rm -f $pidfile
  started_by_us=1
  setsid nohup dockerd ${args[@]+"${args[@]}"} >"$log" 2>&1 </dev/null &
  local pid=$!
  for _ in $(seq 300); do # 30 s
    answers >/dev/null && return
    kill -0 $pid 2>/dev/null || missing "dockerd exited; its log is $log"
    sleep 0.1
  done
  missing "dockerd did not answer within 30 s; its log is $log"
}

# prove runs a static program in an image FROM scratch: the classic builder,
# the storage driver and the runtime all have to work for that.
prove() {
  local dir why
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' RETURN
  printf 'package main\n\nfunc main() { println("runs") }\n' >"$dir/main.go"
  (cd "$dir" && env -u GOFLAGS CGO_ENABLED=0 GOWORK=off GO111MODULE=off go build -ldflags '-s -w' -o proof main.go) >"$dir/err" 2>&1 ||
    missing "cannot build the proof program: $(tail -n 1 "$dir/err")"
  printf 'FROM scratch\nCOPY proof /proof\nENTRYPOINT ["/proof"]\n' >"$dir/Dockerfile"
  DOCKER_BUILDKIT=0 docker build -q -t firn/proof "$dir" >/dev/null 2>"$dir/err" || missing "docker build fails: $(tail -n 1 "$dir/err")"
  why=$(timeout 60 docker run --rm firn/proof 2>&1) && [ "$why" = runs ] || missing "docker run fails: $(echo "$why" | tail -n 1)"
}

if ! answers >/dev/null; then
  [ "$(id -u)" = 0 ] || missing "no daemon answers and this user is not root; start Docker, or run scripts/docker.sh as root once"
  command -v dockerd >/dev/null || install_engine
  command -v docker >/dev/null || missing "dockerd is here but no docker client; install docker.io or docker-cli"
  start_engine
fi
command -v docker >/dev/null || missing "no docker client; install docker.io or docker-cli"
prove
echo "docker: ready $(answers)"
echo "export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 DOCKER_BUILDKIT=0"
