# shellcheck shell=bash
# What the scripts share. To be sourced, from bash with `set -euo pipefail`.

# shellcheck disable=SC2034 # for those who source this
ROOTFS_IMAGE=mdvp/plugin-rootfs SYNC_IMAGE=mdvp/redis-sync SYNC_ALONE_IMAGE=mdvp/sync

# A root shell from plain `su` may have none of the sbin directories.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

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

build() { # build DOCKERFILE TAG [OPTION...]: from the root of the repository, quiet unless it fails
  local output
  # Another builder than the engine's own would keep the image to itself. BUILD_OPTIONS are for those
  # who call the scripts.
  # shellcheck disable=SC2086 # they are several words
  if ! output=$(BUILDX_BUILDER=default docker build ${BUILD_OPTIONS:-} "${@:3}" --tag "$2" \
    --file "$1" . 2>&1); then
    printf '%s\n' "$output" >&2
    die "building $2 from $1 failed; the reason is above"
  fi
}

# A subshell, so that the trap is its own.
apt_install() ( # apt_install PACKAGE...: quiet unless it fails, and without starting any service
  policy=/usr/sbin/policy-rc.d
  command -v apt-get >/dev/null || die "needs $*: install what provides them"
  [ "$(id -u)" = 0 ] || die "needs $*: run as root, or install them first"
  say "installing $*"
  # policy-rc.d is how Debian asks whether a package may start its service: 101 says no.
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  if ! output=$(apt-get update 2>&1 && DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends -o APT::Keep-Downloaded-Packages=false \
      "$@" 2>&1); then
    printf '%s\n' "$output" >&2
    die "installing $* failed; the reason is above"
  fi
)
