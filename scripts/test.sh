#!/usr/bin/env bash
# Runs the tests, on a machine that may have nothing of what they need:
#
#   scripts/test.sh                      everything, the checks of the sources included
#   scripts/test.sh unit|integration|e2e [PYTEST ARGUMENT...]
#   scripts/test.sh servers              what depends on Redis, on each server that scripts/servers.sh has
#   scripts/test.sh lint
#   scripts/test.sh faults [--minutes N] [--seed N]    the fault test of mdvp-sync, for long (as root),
#                                                      after a minute of a git work tree
#   scripts/test.sh faults --mode MODE [--minutes N | --operations N] [--seed N] [--shape flat|tree]
#                                                      the same of a mode of SYNC_MODE, with two
#                                                      hands at work, on the directory and in Redis
#   scripts/test.sh faults --topology sentinel|cluster [--minutes N] [--seed N]
#                                                      the same through Sentinels or into a cluster, with
#                                                      failovers, and a slot that moves
#
# scripts/bench.sh has its own description.
#
# Makes a virtual environment in .venv, and installs what is missing of Debian's packages (as root).
# The end-to-end tests run a Docker Engine of their own; one that runs here already is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PYTHON=${PYTHON:-python3}

need() { # need COMMAND=PACKAGE...: install the Debian packages of those commands that are missing
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

need_for_integration() {
  need redis-server=redis-server redis-cli=redis-tools setpriv=util-linux systemd-analyze=systemd \
    git=git openssl=openssl
}

need_for_e2e() {
  need dockerd=docker.io iptables=iptables slirp4netns=slirp4netns tini=tini \
    mmdebstrap=mmdebstrap nsenter=util-linux pgrep=procps docker-compose=docker-compose
  # From Debian 13 on the client has a package of its own.
  need docker=docker-cli docker-registry=docker-registry
  need_for_bench
}

need_for_bench() {
  need rclone=rclone fusermount3=fuse3
  need_for_bench_mirror
}

need_for_bench_mirror() { # which needs no engine
  need_for_integration
  need inotifywait=inotify-tools
}

need_for_bench_trees() {
  need_for_bench_mirror
  need lsyncd=lsyncd
  # Not every Debian has it (whose packages are known by now); where it is not, it is left out.
  ! apt-cache show watchman >/dev/null 2>&1 || need watchman=watchman
}

servers() { # PYTEST ARGUMENT...
  local name names
  names=$(scripts/servers.sh)
  for name in $names; do
    say "on $name:"
    MDVP_REDIS=$name .venv/bin/pytest --quiet -m servers tests/integration "$@"
  done
}

need_venv() {
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

lint() {
  need shellcheck=shellcheck
  say "checking the sources"
  .venv/bin/ruff check --quiet
  .venv/bin/ruff format --check --quiet
  .venv/bin/mypy
  shellcheck --external-sources scripts/*.sh tests/e2e/*.sh benchmarks/mirror/*.sh \
    sync/image/entrypoint sync/image/entrypoint-sync sync/image/redis-cli
}

without_containers() { # and the integration tests of mdvp, which see all that there are
  .venv/bin/pytest tests/unit
  .venv/bin/pytest tests/integration/test_mdvp_*.py
}

waits() {
  .venv/bin/pytest -m waits tests/integration
  servers
}

beside() { # beside FUNCTION: run it in the background
  "$1" >"build/$1.log" 2>&1 &
  background=$!
}

ended() { # ended FUNCTION: wait until it has ended in the background, and say how
  wait "$background" || { cat "build/$1.log"; die "what ran in the background has failed: $1"; }
  grep -E '^on |(passed|failed)' "build/$1.log"
}

part=${1:-all}
shift || true
need_venv
case $part in
  all)
    lint
    need_for_integration
    need_for_e2e
    mkdir -p build
    # Each of the two that run side by side keeps about one core busy, or mostly waits.
    beside without_containers
    result=0
    .venv/bin/pytest -m 'not waits' --ignore-glob='*/test_mdvp_*' tests/integration || result=$?
    ended without_containers
    [ "$result" = 0 ] || exit "$result"
    beside waits
    .venv/bin/pytest tests/e2e || result=$?
    ended waits
    exit "$result"
    ;;
  lint) lint ;;
  unit) .venv/bin/pytest tests/unit "$@" ;;
  integration)
    need_for_integration
    .venv/bin/pytest tests/integration "$@"
    ;;
  faults)
    need_for_integration
    case " $* " in
      *" --mode "*) ;; # it is about both sides
      *) MDVP_GIT_SECONDS=${MDVP_GIT_SECONDS:-60} .venv/bin/pytest tests/integration/test_sync_git.py ;;
    esac
    PYTHONPATH=tests .venv/bin/python -m faults "$@"
    ;;
  servers)
    need_for_integration
    servers "$@"
    ;;
  e2e)
    need_for_e2e
    .venv/bin/pytest tests/e2e "$@"
    ;;
  bench) # by way of scripts/bench.sh
    case ${1:-} in
      mirror) need_for_bench_mirror ;;
      trees) need_for_bench_trees ;;
      *) need_for_e2e ;;
    esac
    PYTHONPATH=tests .venv/bin/python -m benchmarks "$@"
    ;;
  *) die "unknown part $part: use unit, integration, servers, e2e, faults or lint, or nothing for all" ;;
esac
