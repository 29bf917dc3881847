# shellcheck shell=bash
# What the scripts share. To be sourced, from bash with `set -euo pipefail`.

# shellcheck disable=SC2034 # for those who source this
ROOTFS_IMAGE=mdvp/mdvp SYNC_IMAGE=mdvp/redis-sync SYNC_ALONE_IMAGE=mdvp/sync

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

PYTHON=${PYTHON:-python3}

need() { # need COMMAND=PACKAGE...: install the Debian packages of those commands that are missing
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

need_venv() { # the virtual environment .venv, with all that is needed to develop
  local stamp=.venv/stamp wanted
  [ "$PYTHON" != python3 ] || need python3=python3
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "needs Python 3.11 or later as $PYTHON: install it, or name it in PYTHON"
  wanted=$("$PYTHON" --version; cat requirements/build.txt requirements/dev.txt pyproject.toml)
  [ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || return 0
  say "making the virtual environment .venv"
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  "$PYTHON" -m venv --clear .venv
  pip_install --require-hashes -r requirements/build.txt
  # pyinotify is published as source alone: it is built with the setuptools that is pinned here.
  pip_install --require-hashes --no-build-isolation -r requirements/dev.txt
  pip_install --no-deps --no-build-isolation --editable .
  printf '%s\n' "$wanted" >$stamp
}

pip_install() { .venv/bin/pip install --quiet --disable-pip-version-check "$@"; }
