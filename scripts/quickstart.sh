#!/usr/bin/env bash
# From a fresh Debian or Ubuntu to a directory of files that Redis mirrors, in one command:
#
#   scripts/quickstart.sh            # as root; a second run uses what is there already
#   scripts/quickstart.sh --clean    # removes what it made, and nothing else
#
# Uses the Docker Engine that answers, or installs Debian's and starts it; builds the plugin mdvp
# and the image mdvp/redis-sync; makes the volume redis-vol and the container test-redis1; writes a
# file and shows its key. Takes some minutes, mostly to fetch packages.
#
# Failure model. Before it makes what is not there, it notes in /var/lib/mdvp-quickstart/ how to
# remove it, and --clean does that, the last first. So a run that ends half-way, be it by SIGKILL, is
# continued by the next one or cleaned by --clean. What others made stays: what has our name on the
# engine must have our label, too. What others have come to use stays, and is named. What an engine
# sets in the kernel (docker0, firewall rules, forwarding) is there until the next boot. Package
# lists and logs, those of apt-get and dpkg, are the system's and stay.
set -euo pipefail
# Messages and numbers as this script reads them. The engine's own builder leaves images, which can
# have labels; BuildKit would leave a cache, which cannot.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive DOCKER_BUILDKIT=0
unset PLUGIN_NAME # it would give the plugin that build_plugin.sh makes another name
cd "$(dirname "$0")/.."
. scripts/lib.sh

BASE_IMAGE=debian:trixie-slim PLUGIN=mdvp VOLUME=redis-vol CONTAINER=test-redis1
LABEL=mdvp.quickstart # its value is the kind of thing, as what others make of an image inherits it
export BUILD_OPTIONS="--build-arg BUILT_BY=quickstart --label $LABEL=image" # for lib.sh
STATE=${MDVP_QUICKSTART_STATE:-/var/lib/mdvp-quickstart} # another one for the tests
STEP=0 IN_STEP='' REMARK='' KEPT=''

step() { # step TITLE COMMAND...: shows what the command prints only if it fails
  local start=${EPOCHREALTIME/./}
  STEP=$((STEP + 1)) IN_STEP=yes REMARK=''
  printf '== %d/7 %s ... ' "$STEP" "$1"
  # Not into a pipe, for what writes into one dies with this script, and half-way.
  "${@:2}" >"$STATE/output" 2>&1 </dev/null
  IN_STEP=''
  printf '%s%.1f s\n' "${REMARK:+$REMARK, }" "$((${EPOCHREALTIME/./} - start))e-6"
}
remark() { REMARK=$*; } # to be said at the end of the step

need() { # need WHAT NAME TITLE COMMAND...: a step that has nothing to do if there is one
  if has "${1##* }" "$2"; then step "the $1 $2" remark "there already"; else step "${@:3}"; fi
}

at_exit() {
  local status=$?
  exec >&3 2>&4
  [ -z "$IN_STEP" ] || { say failed && cat "$STATE/output" >&2; }
  [ "$status" -lt 128 ] ||
    say "stopped: run it again to go on, or with --clean to remove what it made so far"
}

wait_for() { # wait_for SECONDS MESSAGE COMMAND...: until the command is true
  local deadline=$((SECONDS + $1))
  until "${@:3}"; do
    [ "$SECONDS" -lt "$deadline" ] || die "$2"
    sleep 0.1
  done
}

# --- The steps ------------------------------------------------------------------------------------

engine_answers() { command -v docker && docker version; } >/dev/null 2>&1
has() { docker "$1" inspect "$2" >/dev/null 2>&1; } # has KIND NAME
by_systemd() { [ -d /run/systemd/system ]; }

use_engine() {
  if engine_answers; then
    step "Docker Engine" check_engine
  elif command -v dockerd >/dev/null; then
    note stop_engine
    step "starting Docker Engine" start_engine
  else
    step "installing Docker Engine" install_engine
  fi
}

install_engine() {
  local packages=(docker.io iptables ca-certificates)
  command -v apt-get ||
    die "no Docker Engine answers, and there is no apt-get to get one with: install Docker Engine"
  apt-get -qq update
  # Since Debian 13 the client is a package of its own.
  ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
  getent group docker || note groupdel docker
  note_paths /var/lib/docker /var/lib/containerd /etc/docker /etc/containerd /etc/cni \
    /opt/containerd /run/docker /run/containerd
  note_packages engine-packages "${packages[@]}"
  note stop_engine
  alone apt-get -qq install --no-install-recommends -o APT::Keep-Downloaded-Packages=false \
    "${packages[@]}"
  hash -r
  start_engine
}

# What outlives this script, or must not end half-way with it, has neither its output nor its lock.
alone() { setsid --wait "$@" 3>&- 4>&- 9>&-; }

start_engine() {
  ! by_systemd || systemctl start docker
  engine_answers || alone setsid --fork dockerd >>"$STATE/dockerd.log" 2>&1
  wait_for 60 "the engine does not start: journalctl --unit docker, or $STATE/dockerd.log, says why" \
    engine_answers
  check_engine
}

check_engine() { # that it is the right one, and has the names free, before minutes of building
  local id driver
  docker plugin ls >/dev/null ||
    die "what answers has no managed plugins, like podman: install Docker Engine instead"
  [ "$(docker info --format '{{.KernelVersion}}')" = "$(uname -r)" ] ||
    die "the engine is on another machine, with another kernel: run it there, on Linux"
  # What is noted is of one engine, and --clean must not meet others' things of our names.
  id=$(docker info --format '{{.ID}}')
  [ -s "$STATE/engine-id" ] || say "$id" >"$STATE/engine-id"
  [ "$(cat "$STATE/engine-id")" = "$id" ] ||
    die "what it made is on another engine: use that one, or delete $STATE to forget it"
  driver=$(docker volume inspect --format '{{.Driver}}' "$VOLUME" 2>/dev/null) || driver=$PLUGIN:latest
  [ "$driver" = "$PLUGIN:latest" ] ||
    die "there is a volume $VOLUME of the driver $driver: remove it, docker volume rm $VOLUME"
  ! has container "$CONTAINER" || docker container inspect "$CONTAINER" --format \
    '{{range .Mounts}}{{println .Name .Destination}}{{end}}' | grep -qxF "$VOLUME /foo" ||
    die "there is a container $CONTAINER without $VOLUME at /foo: remove or docker rename it"
  remark "$(docker version --format '{{.Server.Version}}')"
}

make_base_image() {
  # Where no registry is reachable, base_image.sh makes the base, and installs these for it, while
  # a file keeps services from being started.
  if command -v apt-get && ! command -v mmdebstrap; then
    apt-get -qq update
    note_paths /usr/sbin/policy-rc.d
    note_packages packages mmdebstrap debian-archive-keyring
  fi
  note remove image "$BASE_IMAGE"
  install --directory --mode=1777 "$STATE/tmp" # apt-get works there as another user
  TMPDIR=$STATE/tmp alone scripts/base_image.sh
}

build_plugin() {
  note_paths "$PWD/plugin/rootfs"
  # shellcheck disable=SC2046 # it is one or none
  grep -qs ^remove_plugin "$STATE/made" || note remove_plugin $(plugin_folder)
  note remove image "$ROOTFS_IMAGE"
  note remove_leftovers
  scripts/build_plugin.sh --enable
}

# The plugin's folder is .mdvp, or .mdvp- and something where somebody else has that name. Only root
# can have put a key into a directory that is root's alone.
plugin_folder() {
  find /tmp -maxdepth 1 -name '.mdvp*' -type d -user root -perm 700 -exec test -f '{}/key' ';' -print
}
plugin_enabled() { docker plugin inspect --format '{{.Enabled}}' "$PLUGIN" 2>&1; }
volumes_root() { docker plugin inspect --format '{{(index .Settings.Mounts 0).Source}}' "$PLUGIN"; }

healthy() { # healthy DOCKER-COMMAND...: runs it, and waits for the container
  docker "$@"
  wait_for 90 "the container is not healthy: docker logs $CONTAINER says why" is_healthy
  remark healthy
}
is_healthy() {
  local state
  state=$(docker container inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$CONTAINER")
  [[ $state = running* ]] || die "the container is $state: docker logs $CONTAINER says why"
  [ "$state" = "running healthy" ]
}

show_key() {
  [ -d "${FILE%/*}" ] ||
    die "the volume is not at ${FILE%/*} here: run it where the engine runs, outside of any container"
  if [ ! -e "$FILE" ] && [ ! -L "$FILE" ]; then
    note rm -f "$FILE"
    # The container may put a link there at any time.
    (umask 022 && date '+hello, it is %T' | dd of="$FILE" conv=excl oflag=nofollow)
  fi
  CONTENT=$(docker exec "$CONTAINER" cat /foo/hello)
  wait_for 10 "Redis does not get the file's content: docker logs $CONTAINER says why" has_key
}
has_key() { [ "$(docker exec "$CONTAINER" redis-cli --raw get hello)" = "$CONTENT" ]; }

quickstart() {
  mkdir -p "$STATE"
  use_engine
  need "base image" "$BASE_IMAGE" "getting the base image $BASE_IMAGE, half a minute" make_base_image
  if [ "$(plugin_enabled)" = false ]; then
    step "enabling the plugin $PLUGIN, which was there already" docker plugin enable "$PLUGIN"
  else
    need plugin "$PLUGIN" "building the plugin $PLUGIN, about a minute" build_plugin
  fi
  note remove image "$SYNC_IMAGE"
  need image "$SYNC_IMAGE" "building the image $SYNC_IMAGE, about a minute" \
    scripts/build_image.sh redis-sync
  note remove volume "$VOLUME"
  need volume "$VOLUME" "creating the volume $VOLUME" \
    docker volume create --driver "$PLUGIN" --label "$LABEL=volume" "$VOLUME"
  note remove container "$CONTAINER" --force
  if has container "$CONTAINER"; then
    step "the container $CONTAINER, which was there already" healthy start "$CONTAINER"
  else
    step "starting the container $CONTAINER" healthy run --detach --name "$CONTAINER" \
      --volume "$VOLUME:/foo" --volume-driver="$PLUGIN" --label "$LABEL=container" "$SYNC_IMAGE"
  fi
  FILE=$(volumes_root)/$VOLUME/hello
  step "writing a file and reading its key" show_key
  cat <<END
   $ cat $FILE
   $CONTENT
   $ docker exec $CONTAINER redis-cli get hello
   $CONTENT

Try next:
  # rename the file, and read the new key
  mv $FILE ${FILE%hello}hi; docker exec $CONTAINER redis-cli get hi
  # watch what the mirror does
  docker logs --follow $CONTAINER
  # see who has the volume, and since when
  docker volume inspect $VOLUME
  # a second container is refused: one at a time may have the volume
  docker run --rm --volume $VOLUME:/foo $SYNC_IMAGE
  # remove all that this script made
  scripts/quickstart.sh --clean
END
}

# --- How to remove things: what is noted, and done by --clean -------------------------------------

note() { # note COMMAND [ARGUMENT...]: quoted, as paths may have spaces
  local line
  printf -v line '%q ' "$@"
  grep -qsxF "${line% }" "$STATE/made" || say "${line% }" >>"$STATE/made"
}
note_paths() { for path; do [ -e "$path" ] || note remove_path "$path"; done; } # those not there yet
# An upgrade, which apt-get shows with the old version, is nothing that --clean could undo.
note_packages() { # note_packages LIST PACKAGE...: all that apt-get would install for these
  note remove_packages "$1"
  apt-get --simulate install --no-install-recommends "${@:2}" |
    awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }' >>"$STATE/$1"
}

clean() { # the last first; what fails stays noted
  local command answer
  # Where we installed an engine and it is gone, so is all that was on it.
  if engine_answers; then
    check_engine
  elif command -v dockerd >/dev/null || [ ! -e "$STATE/engine-packages" ]; then
    say "starting the engine, to remove what is on it"
    start_engine
  fi
  while read -r command; do
    if answer=$(eval "$command" 2>&1); then
      [ -z "$answer" ] || say "$answer"
      grep -vxF "$command" "$STATE/made" >"$STATE/left" || true # it may be the last line
      mv "$STATE/left" "$STATE/made"
    else
      KEPT=yes
      say "kept    ${command#* }: $answer"
      [ "$command" != stop_engine ] || break # and what it is made of
    fi
  done < <(tac "$STATE/made")
  [ -z "$KEPT" ] || die "what is kept stays on record: run --clean again when nothing needs it"
  rm -r "$STATE"
}

remove() { # remove KIND NAME [OPTION]: if it has our label; the base image can have none
  has "$1" "$2" || return 0
  [ "$2" = "$BASE_IMAGE" ] || docker "$1" inspect "$2" | grep -q "\"$LABEL\": \"$1\"" || return 0
  docker "$1" rm "${@:3}" "$2" >/dev/null && say "removed the $1 $2"
}

# A build of the plugin that was killed leaves a container, which was never started.
remove_leftovers() {
  docker ps --all --quiet --filter "ancestor=$ROOTFS_IMAGE" | xargs -r docker rm >/dev/null
  docker image prune --force --filter label=mdvp.built-by=quickstart >/dev/null
}

remove_plugin() { # remove_plugin [FOLDER]: and its folder, unless this was there before
  local volumes folder=''
  has plugin "$PLUGIN" || return 0
  # Disabled, it hides its volumes.
  [ "$(plugin_enabled)" = true ] || docker plugin enable "$PLUGIN" >/dev/null || return
  volumes=$(docker volume ls --quiet --filter "driver=$PLUGIN:latest")
  [ -z "$volumes" ] || { say "it has volumes, ${volumes//$'\n'/ }" && return 1; }
  # With another root now, it may still have volumes in /tmp.
  [ $# -gt 0 ] || [ "$(volumes_root)" != /tmp ] || folder=$(plugin_folder)
  docker plugin disable --force "$PLUGIN" >/dev/null || return
  [ -z "$folder" ] || remove_path "$folder"
  docker plugin rm "$PLUGIN" >/dev/null && say "removed the plugin $PLUGIN"
}

remove_path() { # remove_path PATH: without what is mounted there, which may be somebody's
  [ -e "$1" ] || return 0
  awk -v at="$1/" 'index($5 "/", at) == 1 { print $5 }' /proc/self/mountinfo | tac |
    xargs -r umount || true
  rm -r --one-file-system "$1" && say "removed $1"
}

stop_engine() { # unless others have come to use it
  local other pid
  other=$(docker ps --format 'container {{.Names}}')
  [ ! -e "$STATE/engine-packages" ] || other+=$(
    docker system df --format '{{.Type}}: {{.TotalCount}}' | grep -v ': 0$' | tr '\n' ' '
    docker plugin ls --quiet && docker network ls --filter type=custom --quiet
  )
  [ -z "$other" ] || { say "there is more on it, $other" && return 1; }
  if by_systemd; then
    systemctl stop 'docker.*' # the socket, too
  else
    pid=$(cat /run/docker.pid) && kill "$pid" && timeout 60 tail --pid="$pid" --follow /dev/null
  fi && say "stopped Docker Engine"
}

# dpkg and not apt-get: it leaves a package that others need, and removes none that is not named.
remove_packages() { # remove_packages LIST
  local answer
  if answer=$(sort -u "$STATE/$1" | xargs dpkg --purge 2>&1); then
    say "removed the packages that it installed"
  else # and dpkg must not remember that those which stay were to go
    sed 's/$/ install/' "$STATE/$1" | dpkg --set-selections 2>/dev/null
    grep ^dpkg: <<<"$answer" && return 1
  fi
}

case $#,${1:-} in
  0,) run=quickstart ;;
  1,--clean) run=clean ;;
  1,--help | 1,-h) sed -n '2,10s/^# \{0,1\}//p' scripts/quickstart.sh && exit ;;
  *) say 'usage: scripts/quickstart.sh [--clean]   (--help says more)' >&2 && exit 2 ;;
esac
[ "$(uname -s)" = Linux ] || die "this is $(uname -s): run it on Linux, say in a virtual machine"
[ "$EUID" -eq 0 ] || die "it needs root, to install and to write to the volume: use sudo"
# Before anything is installed, which does not help if the client looks for the engine elsewhere.
host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || host=${DOCKER_HOST:-}
case $host in
  '' | unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
  unix://*) engine_answers || die "no engine answers at $host: start it, or unset DOCKER_HOST" ;;
  *) die "the engine is at $host, but the volume must be on this machine: run it there" ;;
esac
[ "$run" = quickstart ] || [ -d "$STATE" ] ||
  { say "nothing to remove: the quickstart has made nothing on this machine" && exit; }
exec 3>&1 4>&2 9<scripts/quickstart.sh
flock --nonblock 9 || die "it is running already: wait for that run to end" # the lock goes with us
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"$run"
