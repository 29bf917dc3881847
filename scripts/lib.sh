# shellcheck shell=bash
# What the scripts share. To be sourced, from bash with `set -euo pipefail`.

ROOTFS_IMAGE=mdvp/plugin-rootfs
SYNC_IMAGE=mdvp/redis-sync

say() { printf '%s\n' "$*"; }

die() { # die MESSAGE: one line on what is wrong and the way out
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

need_engine() {
  command -v docker >/dev/null || die "there is no docker command: install Docker Engine first"
  docker version >/dev/null 2>&1 ||
    die "no Docker Engine answers: start it (systemctl start docker), or set DOCKER_HOST"
}

build() { # build DOCKERFILE TAG: from the root of the repository, quiet unless it fails
  local output
  if ! output=$(docker build --tag "$2" --file "$1" . 2>&1); then
    printf '%s\n' "$output" >&2
    die "building $2 from $1 failed; the reason is above"
  fi
}
