#!/usr/bin/env bash
# Runs the tests, on a machine that may have nothing of what they need:
#
#   scripts/test.sh                      everything, the checks of the sources included
#   scripts/test.sh unit|integration|e2e [PYTEST ARGUMENT...]
#   scripts/test.sh servers              what depends on Redis, on each server that scripts/servers.sh has
#   scripts/test.sh release [PYTEST ARGUMENT...]    packages, manual pages, completions, README and docs/
#   scripts/test.sh lint
#   scripts/test.sh faults [--minutes N] [--seed N]    the fault test of mdvp-sync, for long (as root),
#                                                      after a minute of a git work tree
#   scripts/test.sh faults --mode MODE [--minutes N | --operations N] [--seed N] [--shape flat|tree]
#                                                      the same of a mode of SYNC_MODE, with two
#                                                      hands at work, on the directory and in Redis
#   scripts/test.sh faults --topology sentinel|cluster [--minutes N] [--seed N]
#                                                      the same through Sentinels or into a cluster, with
#                                                      failovers, and a slot that moves
#   scripts/test.sh crashes [PYTEST ARGUMENT...]       mdvp killed, and the power cut, before each system
#                                                      call of an operation, on ext4, btrfs and XFS (as
#                                                      root, for an hour; the other parts have some)
#
# scripts/bench.sh has its own description.
#
# Makes a virtual environment in .venv, and installs what is missing of Debian's packages (as root).
# The end-to-end tests run a Docker Engine of their own; one that runs here already is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_for_integration() {
  need redis-server=redis-server redis-cli=redis-tools setpriv=util-linux systemd-analyze=systemd \
    git=git openssl=openssl promtool=prometheus \
    prometheus-node-exporter=prometheus-node-exporter mkfs.btrfs=btrfs-progs mkfs.xfs=xfsprogs \
    mkfs.ext4=e2fsprogs strace=strace
}

need_for_release() {
  need redis-server=redis-server redis-cli=redis-tools pipx=pipx curl=curl git=git \
    man=man-db groff=groff-base mandoc=mandoc zsh=zsh fish=fish
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

lint() {
  need shellcheck=shellcheck
  say "checking the sources"
  .venv/bin/ruff check --quiet
  .venv/bin/ruff format --check --quiet
  .venv/bin/mypy
  shellcheck --external-sources scripts/*.sh tests/e2e/*.sh benchmarks/mirror/*.sh \
    sync/image/entrypoint sync/image/entrypoint-sync sync/image/redis-cli
}

# What is seen of both parts from outside: the integration tests that are run beside the others.
SEEN=(tests/integration/test_sync_top.py)

without_containers() { # and the integration tests of mdvp, which see all that there are
  .venv/bin/pytest tests/unit
  .venv/bin/pytest tests/integration/test_mdvp_*.py
  .venv/bin/pytest tests/release
  .venv/bin/pytest -m 'not waits' "${SEEN[@]}"
}

# The end-to-end tests that are run on an engine of their own, beside the others.
BESIDE=(tests/e2e/test_commands.py tests/e2e/test_pages.py tests/e2e/test_quickstart.py
  tests/e2e/test_registry.py tests/e2e/test_sys_admin.py)

# Builds fill plugin/rootfs/ and take it away, and tests read it. So what runs beside the others has
# a view of this directory in which it sees its own changes, and nobody else does. The two device
# nodes are how overlayfs marks what is not there.
in_own_tree() { # in_own_tree COMMAND [ARGUMENT...]
  mkdir -p build/tree
  # shellcheck disable=SC2016 # for the shell that has the view
  unshare --mount --propagation slave -- sh -euc '
    mount -t tmpfs tmpfs build/tree
    mkdir -p build/tree/upper/plugin build/tree/work
    mknod build/tree/upper/plugin/rootfs c 0 0
    mknod build/tree/upper/build c 0 0
    mount -t overlay overlay -o lowerdir=.,upperdir=build/tree/upper,workdir=build/tree/work .
    cd "$PWD" # the view, and not what is below it
    exec "$@"' sh "$@"
}

waits() {
  .venv/bin/pytest -m waits tests/integration
  servers
  in_own_tree .venv/bin/pytest "${BESIDE[@]}"
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
    need_for_release
    mkdir -p build
    # Each of the two that run side by side keeps about one core busy, or mostly waits.
    beside without_containers
    result=0
    .venv/bin/pytest -m 'not waits' --ignore-glob='*/test_mdvp_*' "${SEEN[@]/#/--ignore=}" \
      tests/integration || result=$?
    ended without_containers
    [ "$result" = 0 ] || exit "$result"
    beside waits
    .venv/bin/pytest "${BESIDE[@]/#/--ignore=}" tests/e2e || result=$?
    ended waits
    exit "$result"
    ;;
  lint) lint ;;
  unit) .venv/bin/pytest tests/unit "$@" ;;
  integration)
    need_for_integration
    .venv/bin/pytest tests/integration "$@"
    ;;
  release)
    need_for_release
    .venv/bin/pytest tests/release "$@"
    ;;
  faults)
    need_for_integration
    case " $* " in
      *" --mode "*) ;; # it is about both sides
      *) MDVP_GIT_SECONDS=${MDVP_GIT_SECONDS:-60} .venv/bin/pytest tests/integration/test_sync_git.py ;;
    esac
    PYTHONPATH=tests .venv/bin/python -m faults "$@"
    ;;
  crashes)
    need_for_integration
    MDVP_CRASH_POINTS=all .venv/bin/pytest --timeout=3600 tests/integration/test_mdvp_crash_points.py \
      tests/integration/test_mdvp_power.py "$@"
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
  *) die "unknown part $part: use unit, integration, servers, e2e, release, faults, crashes or lint, or nothing" ;;
esac
