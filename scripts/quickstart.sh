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
# Failure model. Each thing that it makes is put on record in /var/lib/mdvp-quickstart/ before it is
# made, if it is not there yet, and taken off when it is removed. So a run that ends half-way, be it
# by SIGKILL, is continued by the next one or cleaned by --clean, and what others made is not on
# record and stays. What of ours others have come to use stays, too, and is named.
# Package lists and logs, those of apt-get and dpkg, are the system's and stay.
set -euo pipefail
# For apt-get and docker: messages and numbers as this script reads them.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
unset PLUGIN_NAME # it would give the plugin that build_plugin.sh makes another name
cd "$(dirname "$0")/.."
. scripts/lib.sh

BASE_IMAGE=debian:trixie-slim
PLUGIN=mdvp
VOLUME=redis-vol
CONTAINER=test-redis1
ROOTFS=$PWD/plugin/rootfs
PLUGIN_STATE=/tmp/.mdvp

STATE=${MDVP_QUICKSTART_STATE:-/var/lib/mdvp-quickstart} # another one for the tests
RECORD=$STATE/made           # lines of KIND NAME
BUILDING=$STATE/before-build # while something is built: what `build_leftovers` said before
DEFAULT_HOST=unix:///var/run/docker.sock
ENGINE_PID=/run/docker.pid
ENGINE_LOG=/var/log/mdvp-quickstart-dockerd.log
# What an engine makes on the disk and its packages do not remove.
ENGINE_DIRECTORIES=(/var/lib/docker /var/lib/containerd /etc/docker /etc/containerd /etc/cni
  /opt/containerd /run/docker /run/containerd)

# --- The record -----------------------------------------------------------------------------------

is_ours() { grep -qxF "$1 $2" "$RECORD" 2>/dev/null; } # is_ours KIND NAME

ours() { sed -n "s/^$1 //p" "$RECORD" 2>/dev/null || true; } # ours KIND: the names on record

record() { # record KIND NAME
  is_ours "$1" "$2" && return
  mkdir -p "$STATE"
  printf '%s %s\n' "$1" "$2" >>"$RECORD"
}

forget() { # forget KIND NAME
  is_ours "$1" "$2" || return 0
  grep -vxF "$1 $2" "$RECORD" >"$RECORD.new" || true # grep fails when no line is left
  mv "$RECORD.new" "$RECORD"
}

# What was not made after all must not be taken for ours once somebody else has made it.
forget_unmade() {
  local name
  is_our_engine || return 0
  has_container || forget container "$CONTAINER"
  has_plugin || forget plugin "$PLUGIN"
  # A plugin that is disabled does not say what volumes it has.
  ! is_enabled || has_volume || forget volume "$VOLUME"
  for name in $(ours image); do has_image "$name" || forget image "$name"; done
  # A plugin that is there makes its directories, if it has not yet.
  is_ours plugin "$PLUGIN" ||
    while read -r name; do [ -e "$name" ] || forget directory "$name"; done < <(ours directory)
}

# --- What is said ---------------------------------------------------------------------------------

STEPS=7
CURRENT=0
IN_STEP='' # while the line of a step is not ended
SINCE=0

begin() { # begin TITLE: opens the line of the next step
  CURRENT=$((CURRENT + 1))
  IN_STEP=yes
  SINCE=$EPOCHREALTIME
  printf '== %d/%d %s ... ' "$CURRENT" "$STEPS" "$1"
}

end() { # end [REMARK]: closes it, with the time that it took
  IN_STEP=''
  printf '%s%s s\n' "${1:+$1, }" "$(seconds)"
}

there_already() { # there_already TITLE: a step with nothing to do
  begin "$1"
  end "there already"
}

seconds() { # how long ago SINCE was, to a tenth
  local tenths=$(((${EPOCHREALTIME/./} - ${SINCE/./}) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

fail() { # fail MESSAGE: as die, in a step
  [ -z "$IN_STEP" ] || printf 'failed\n'
  IN_STEP=''
  die "$@"
}

quietly() { # quietly COMMAND...: shows what the command printed only if it fails
  local output
  output=$("$@" 2>&1 </dev/null) || {
    [ -z "$IN_STEP" ] || printf 'failed\n'
    IN_STEP=''
    printf '%s\n' "$output" >&2
    die "this failed, for the reason above: $*"
  }
}

at_exit() {
  local status=$?
  [ -z "$IN_STEP" ] || printf 'stopped\n'
  [ "$status" -ne 0 ] || return 0
  # As soon as possible: what was built by then must not be taken for somebody else's.
  record_build_leftovers
  forget_unmade
  [ "$status" -lt 128 ] ||
    say "stopped: run it again to go on, or with --clean to remove what it made so far"
}

# --- The machine ----------------------------------------------------------------------------------

check_machine() {
  [ "$(uname -s)" = Linux ] || die "this is $(uname -s): run it on Linux, say in a virtual machine"
  [ "$EUID" -eq 0 ] || die "it needs root, to install and to write to the volume: use sudo"
}

one_at_a_time() { # the lock goes with the process
  exec 9<scripts/quickstart.sh
  flock --nonblock 9 || die "it is running already: wait for that run to end"
}

# Before anything is installed, which does not help if the client looks for the engine elsewhere.
check_endpoint() {
  local host
  host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) ||
    host=${DOCKER_HOST:-$DEFAULT_HOST}
  case $host in
    "$DEFAULT_HOST" | unix:///run/docker.sock) return ;;
    unix://*) ;;
    *) die "the engine is at $host, but the volume must be on this machine: run it there" ;;
  esac
  command -v docker >/dev/null || die "there is no docker command to reach $host: install one"
  engine_answers ||
    die "no engine answers at $host: start it, or unset DOCKER_HOST and DOCKER_CONTEXT"
}

# --- The engine -----------------------------------------------------------------------------------

engine_answers() { command -v docker >/dev/null && docker version >/dev/null 2>&1; }
by_systemd() { [ -d /run/systemd/system ]; }
is_dockerd() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = dockerd ]; } # is_dockerd PID

use_engine() {
  if engine_answers; then
    begin "Docker Engine"
  elif command -v dockerd >/dev/null; then
    begin "starting Docker Engine"
    start_engine
  else
    command -v apt-get >/dev/null ||
      die "no Docker Engine answers, and there is no apt-get to get one with: install Docker Engine"
    begin "installing Docker Engine"
    install_engine
    engine_answers || start_engine
  fi
  check_engine
  check_same_engine
  forget_unmade
  check_names
  end "$(docker version --format '{{.Server.Version}}')"
}

check_engine() {
  local kind kernel
  docker plugin ls >/dev/null 2>&1 ||
    fail "what answers has no managed plugins, like podman: install Docker Engine instead"
  kind=$(docker version --format '{{.Server.Os}}')
  [ "$kind" = linux ] || fail "the engine runs $kind containers: switch it to Linux containers"
  kernel=$(docker info --format '{{.KernelVersion}}')
  [ "$kernel" = "$(uname -r)" ] ||
    fail "the engine is on another machine, with Linux $kernel: run it there"
}

# Names are ours on one engine only: --clean must not meet things of the same names on another.
check_same_engine() {
  [ -n "$(ours engine-id)" ] || record engine-id "$(engine_id)"
  is_our_engine ||
    fail "what it made is on another engine: use that one, or delete $STATE to forget it"
}

engine_id() { docker info --format '{{.ID}}'; }
is_our_engine() { engine_answers && is_ours engine-id "$(engine_id)"; }

check_names() { # now, rather than after minutes of building
  local driver
  driver=$(docker volume inspect --format '{{.Driver}}' "$VOLUME" 2>/dev/null) ||
    driver=$PLUGIN:latest
  [ "$driver" = "$PLUGIN:latest" ] ||
    fail "there is a volume $VOLUME of the driver $driver: remove it, docker volume rm $VOLUME"
  ! has_container || has_our_volume ||
    fail "there is a container $CONTAINER without $VOLUME at /foo: remove or docker rename it"
}

install_engine() {
  local packages=(docker.io iptables ca-certificates) directory
  quietly apt-get -qq update
  # Since Debian 13 the client is a package of its own.
  ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
  for directory in "${ENGINE_DIRECTORIES[@]}"; do
    [ -e "$directory" ] || record engine-directory "$directory"
  done
  getent group docker >/dev/null || record group docker
  record_network
  record engine installed
  record_packages engine-package "${packages[@]}"
  quietly apt-get -qq install --no-install-recommends -o APT::Keep-Downloaded-Packages=false \
    "${packages[@]}"
  hash -r
}

# The settings of the kernel that an engine changes when it starts.
record_network() {
  [ -e /sys/class/net/docker0 ] || record network docker0
  [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ] || return 0
  record network ip_forward=0
  iptables --list-rules FORWARD 2>/dev/null | grep -q '^-P FORWARD DROP' ||
    record network FORWARD=ACCEPT
}

start_engine() {
  if by_systemd; then
    record engine unit
    quietly systemctl start docker
  else
    record engine by-hand
    start_by_hand
  fi
  wait_for_engine
}

start_by_hand() {
  local pid
  pid=$(cat "$ENGINE_PID" 2>/dev/null) || pid=''
  # Left by an engine that was killed. The number may by now be another process', and then dockerd
  # would refuse to start.
  [ -z "$pid" ] || is_dockerd "$pid" || rm "$ENGINE_PID"
  setsid --fork dockerd >>"$ENGINE_LOG" 2>&1 </dev/null 9<&-
}

wait_for_engine() {
  local started=$SECONDS
  until engine_answers; do
    if [ $((SECONDS - started)) -gt 60 ] || { [ $((SECONDS - started)) -gt 5 ] && ! engine_lives; }
    then
      fail "the engine does not start: $(engine_complaint)"
    fi
    sleep 0.2
  done
}

engine_lives() { by_systemd || grep -qsx dockerd /proc/[0-9]*/comm; } # pgrep is not everywhere

engine_complaint() {
  if by_systemd; then
    say "journalctl --unit docker says why"
  else
    { grep -i '^failed to start' "$ENGINE_LOG" || say "see $ENGINE_LOG"; } | tail -n 1
  fi
}

# --- Packages -------------------------------------------------------------------------------------

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# An upgrade, which apt-get shows with the old version, is nothing that --clean could undo.
record_packages() { # record_packages KIND PACKAGE...: all that apt-get would install for these
  local package
  while read -r package; do
    record "$1" "$package"
  done < <(apt-get --simulate install --no-install-recommends "${@:2}" 2>/dev/null |
    awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }')
}

forget_absent() { # forget_absent KIND: the packages that are not installed
  local package
  for package in $(ours "$1"); do
    is_installed "$package" || forget "$1" "$package"
  done
}

# --- What the builds leave ------------------------------------------------------------------------

# Untagged images, of the builds' first stages, and with BuildKit its cache: lines of KIND ID.
build_leftovers() {
  {
    docker image ls --quiet --no-trunc --filter dangling=true | sed 's/^/image /'
    # Without buildx, docker builds without that cache.
    { docker buildx du 2>/dev/null || true; } |
      awk '$2 ~ /^(true|false)$/ { sub(/\*$/, "", $1); print "cache", $1 }'
  } | sort -u
}

building() { # building COMMAND...
  mkdir -p "$STATE"
  # There is one if a run was killed while it built: what it has built since then is ours, too.
  [ -e "$BUILDING" ] || { build_leftovers >"$BUILDING.new" && mv "$BUILDING.new" "$BUILDING"; }
  quietly "$@"
  record_build_leftovers
}

record_build_leftovers() {
  local kind id
  [ -e "$BUILDING" ] && is_our_engine || return 0
  while read -r kind id; do
    [ "$kind" = cache ] || is_on_base "$id" || continue
    record "$kind" "$id"
  done < <(build_leftovers | comm -13 "$BUILDING" -)
  rm "$BUILDING"
}

is_on_base() { # is_on_base IMAGE: if not, somebody else's build has ended at the same time
  local layer='{{index .RootFS.Layers 0}}'
  [ "$(docker image inspect --format "$layer" "$1")" = \
    "$(docker image inspect --format "$layer" "$BASE_IMAGE")" ]
}

# --- The steps ------------------------------------------------------------------------------------

has_image() { docker image inspect "$1" >/dev/null 2>&1; }
has_volume() { docker volume inspect "$VOLUME" >/dev/null 2>&1; }
has_container() { docker container inspect "$CONTAINER" >/dev/null 2>&1; }
has_plugin() { docker plugin inspect "$PLUGIN" >/dev/null 2>&1; }
is_enabled() { [ "$(docker plugin inspect --format '{{.Enabled}}' "$PLUGIN" 2>&1)" = true ]; }

record_image() { has_image "$1" || record image "$1"; }

use_base_image() {
  if has_image "$BASE_IMAGE"; then
    there_already "the base image $BASE_IMAGE"
    return
  fi
  begin "getting the base image $BASE_IMAGE, half a minute"
  record_image "$BASE_IMAGE"
  # Where no registry is reachable, base_image.sh makes the base, and installs these for it.
  if command -v apt-get >/dev/null && ! command -v mmdebstrap >/dev/null; then
    apt-cache show mmdebstrap >/dev/null 2>&1 || quietly apt-get -qq update
    record_packages package mmdebstrap debian-archive-keyring
  fi
  quietly scripts/base_image.sh
  forget_absent package # it was reachable
  end
}

use_plugin() {
  if is_enabled; then
    there_already "the plugin $PLUGIN"
  elif has_plugin; then
    begin "enabling the plugin $PLUGIN, which was there already"
    quietly docker plugin enable "$PLUGIN"
    end
  else
    begin "building the plugin $PLUGIN, about a minute"
    record_image "$ROOTFS_IMAGE"
    [ -e "$ROOTFS" ] || record directory "$ROOTFS"
    [ -e "$PLUGIN_STATE" ] || record directory "$PLUGIN_STATE"
    record plugin "$PLUGIN"
    building scripts/build_plugin.sh --enable
    end
  fi
}

use_image() {
  if has_image "$SYNC_IMAGE"; then
    there_already "the image $SYNC_IMAGE"
    return
  fi
  begin "building the image $SYNC_IMAGE, about a minute"
  record_image "$SYNC_IMAGE"
  building scripts/build_image.sh redis-sync
  end
}

use_volume() {
  if has_volume; then
    there_already "the volume $VOLUME"
    return
  fi
  begin "creating the volume $VOLUME"
  record volume "$VOLUME"
  quietly docker volume create --driver "$PLUGIN" "$VOLUME"
  end
}

use_container() {
  local state=''
  ! has_container || state=$(docker container inspect --format '{{.State.Status}}' "$CONTAINER")
  case $state in
    '')
      begin "starting the container $CONTAINER"
      record container "$CONTAINER"
      quietly docker run --detach --volume "$VOLUME:/foo" --volume-driver="$PLUGIN" \
        --name "$CONTAINER" "$SYNC_IMAGE"
      ;;
    running) begin "the container $CONTAINER, which was there already" ;;
    paused)
      begin "unpausing the container $CONTAINER, which was there already"
      quietly docker unpause "$CONTAINER"
      ;;
    *)
      begin "starting the container $CONTAINER, which was there already"
      quietly docker start "$CONTAINER"
      ;;
  esac
  wait_until_healthy
  end healthy
}

has_our_volume() {
  docker container inspect --format '{{range .Mounts}}{{println .Name .Destination}}{{end}}' \
    "$CONTAINER" | grep -qxF "$VOLUME /foo"
}

wait_until_healthy() {
  local deadline=$((SECONDS + 90)) state
  while :; do
    state=$(docker container inspect "$CONTAINER" \
      --format '{{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}')
    [ "$state" != 'running healthy' ] || return 0
    if [ "${state% *}" != running ] || [ "$SECONDS" -ge "$deadline" ]; then
      fail "the container is $state, not healthy: docker logs $CONTAINER says why"
    fi
    sleep 0.2
  done
}

volumes_root() { # the host's directory of all volumes
  docker plugin inspect "$PLUGIN" \
    --format '{{range .Settings.Mounts}}{{if eq .Name "data"}}{{.Source}}{{end}}{{end}}'
}

show_key() {
  local place file temporary content
  place=$(volumes_root)/$VOLUME
  file=$place/hello
  begin "writing a file and reading its key"
  [ -d "$place" ] ||
    fail "the volume is not at $place here: run it where the engine runs, outside of any container"
  # The container may put links and other files there at any time. So the file is made anew, written
  # by the descriptor that made it, and renamed into place; what is there is read in the container.
  if is_ours file "$file" || { [ ! -e "$file" ] && [ ! -L "$file" ]; }; then
    record file "$file"
    content="hello, it is $(date +%H:%M:%S)"
    temporary=$place/.hello.$RANDOM$RANDOM
    (umask 022 && dd of="$temporary" conv=excl oflag=nofollow status=none <<<"$content")
    mv --no-target-directory "$temporary" "$file"
  else # somebody else's, which is shown as it is
    content=$(docker exec "$CONTAINER" cat /foo/hello)
  fi
  wait_for_key "$content"
  end
  printf '   $ %s\n   %s\n' "cat $file" "$content" \
    "docker exec $CONTAINER redis-cli get hello" "$content"
}

wait_for_key() { # wait_for_key CONTENT
  local deadline=$((SECONDS + 10))
  until [ "$(docker exec "$CONTAINER" redis-cli --raw get hello)" = "$1" ]; do
    [ "$SECONDS" -lt "$deadline" ] ||
      fail "Redis does not get the file's content: docker logs $CONTAINER says why"
    sleep 0.05
  done
}

say_what_next() {
  local place
  place=$(volumes_root)/$VOLUME
  cat <<END

Try next:
  # rename the file, and read the new key
  mv $place/hello $place/hi; docker exec $CONTAINER redis-cli get hi
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

quickstart() {
  use_engine
  use_base_image
  use_plugin
  use_image
  use_volume
  use_container
  show_key
  say_what_next
}

# --- --clean --------------------------------------------------------------------------------------

KEPT=''

removed() { say "removed $*"; }

kept() { # kept WHAT WHY: it stays, and stays on record, for the next --clean
  KEPT=yes
  say "kept    $1: $2"
}

clean() {
  if [ ! -s "$RECORD" ]; then
    rm -rf "$STATE"
    say "nothing to remove: the quickstart has made nothing on this machine"
    return
  fi
  SINCE=$EPOCHREALTIME
  reach_engine
  if engine_answers; then
    check_same_engine
    record_build_leftovers
    clean_container
    clean_volume
    clean_plugin
    clean_images
    clean_build_cache
  fi
  clean_rootfs
  clean_packages package "for the base image"
  clean_engine
  close_record
}

# It may have been stopped since, or the machine started anew. Where we installed it and it is gone,
# all that was on it is gone, too.
reach_engine() {
  engine_answers || [ -z "$(ours engine-id)" ] && return
  if command -v dockerd >/dev/null; then
    say "starting the engine, to remove what is on it"
    start_engine
  elif ! is_ours engine installed; then
    die "no Docker Engine answers: start the one that the quickstart used, then run this again"
  fi
}

clean_container() {
  is_ours container "$CONTAINER" || return 0
  if has_container; then
    quietly docker rm --force "$CONTAINER"
    removed "the container $CONTAINER"
  fi
  forget container "$CONTAINER"
}

clean_volume() {
  local user
  # Somebody may have disabled the driver, which then says nothing of its volumes.
  is_enabled || docker plugin enable "$PLUGIN" >/dev/null 2>&1 || return 0
  if is_ours volume "$VOLUME" && has_volume; then
    user=$(docker ps --all --filter "volume=$VOLUME" --format '{{.Names}}' | head -n 1)
    if [ -n "$user" ]; then
      kept "the volume $VOLUME" "the container $user has it"
      return
    fi
    quietly docker volume rm "$VOLUME"
    removed "the volume $VOLUME"
  fi
  forget volume "$VOLUME"
  clean_files
}

clean_files() { # those in a volume that stays
  local file
  while read -r file; do
    [ ! -f "$file" ] || { rm "$file" && removed "the file $file"; }
    forget file "$file"
  done < <(ours file)
}

clean_plugin() {
  local volumes root=''
  is_ours plugin "$PLUGIN" || return 0
  if has_plugin; then
    if ! is_enabled; then
      kept "the plugin $PLUGIN" "it cannot be enabled, so its volumes are not known"
      return
    fi
    volumes=$(docker volume ls --quiet --filter "driver=$PLUGIN:latest")
    if [ -n "$volumes" ]; then
      kept "the plugin $PLUGIN" "it has volumes, ${volumes//$'\n'/ }"
      return
    fi
    root=$(volumes_root)
    quietly docker plugin disable --force "$PLUGIN"
    quietly docker plugin rm "$PLUGIN"
    removed "the plugin $PLUGIN"
  fi
  forget plugin "$PLUGIN"
  clean_plugin_state "$root"
}

# The plugin's record of its volumes. That there are none is known of the root that it had.
clean_plugin_state() { # clean_plugin_state ROOT
  is_ours directory "$PLUGIN_STATE" || return 0
  if [ "$1/.mdvp" = "$PLUGIN_STATE" ]; then
    remove_tree "$PLUGIN_STATE" || return 0
  elif [ -e "$PLUGIN_STATE" ]; then
    say "kept    $PLUGIN_STATE: the plugin was changed, and may have volumes in ${PLUGIN_STATE%/*}"
  fi
  forget directory "$PLUGIN_STATE"
}

clean_images() {
  local image user untagged=0
  # A build of the plugin that was killed leaves a container.
  ! is_ours image "$ROOTFS_IMAGE" ||
    docker ps --all --quiet --filter "ancestor=$ROOTFS_IMAGE" | xargs -r docker rm >/dev/null
  # The last that was made first, for it may be made of one before it.
  while read -r image; do
    if has_image "$image"; then
      user=$(docker ps --all --filter "ancestor=$image" --format '{{.Names}}' | head -n 1)
      if [ -n "$user" ]; then
        kept "the image $image" "the container $user has it"
        continue
      fi
      quietly docker image rm "$image"
      case $image in
        sha256:*) untagged=$((untagged + 1)) ;;
        *) removed "the image $image" ;;
      esac
    fi
    forget image "$image"
  done < <(ours image | tac)
  [ "$untagged" -eq 0 ] || removed "$untagged untagged images that the builds left"
}

# An entry can go when those that are made of it are gone, so there are as many rounds as it takes.
clean_build_cache() {
  local id before='' left
  left=$(ours cache)
  [ -n "$left" ] || return 0
  until [ "$left" = "$before" ]; do
    before=$left
    for id in $before; do
      docker buildx prune --force --filter "id=$id" >/dev/null 2>&1 || true
    done
    left=$(comm -12 <(sort <<<"$before") <(build_leftovers | sed -n 's/^cache //p'))
  done
  for id in $(ours cache); do
    grep -qxF "$id" <<<"$left" || forget cache "$id"
  done
  [ -z "$left" ] || kept "some of the build cache" "other builds have come to use it"
  [ -n "$left" ] || removed "the build cache of its builds"
}

clean_rootfs() {
  is_ours directory "$ROOTFS" && ! is_ours plugin "$PLUGIN" || return 0
  ! remove_tree "$ROOTFS" || forget directory "$ROOTFS"
}

# A mount on it may be a bind of a directory with content of somebody's, so unmounted it must be.
remove_tree() { # remove_tree DIRECTORY
  local mount
  [ -e "$1" ] || return 0
  while read -r mount; do
    umount "$mount" 2>/dev/null || true
  done < <(mounts_on "$1" | tac)
  if [ -n "$(mounts_on "$1")" ]; then
    kept "$1" "something is mounted there"
    return 1
  fi
  rm -rf "$1" && removed "$1"
}

mounts_on() { # mounts_on DIRECTORY: and below it, in the order in which they were made
  awk -v at="$1/" 'index($5 "/", at) == 1 { print $5 }' /proc/self/mountinfo
}

# dpkg and not apt-get: it leaves a package that others need, and removes none that is not named.
clean_packages() { # clean_packages KIND WHAT-FOR
  local output count needed
  forget_absent "$1"
  count=$(ours "$1" | wc -l)
  [ "$count" -gt 0 ] || return 0
  output=$(ours "$1" | xargs dpkg --purge 2>&1) || true
  [[ $output != *'locked by another process'* ]] ||
    die "dpkg is busy with something else: run --clean again when that is done"
  forget_absent "$1"
  needed=$(ours "$1")
  if [ -n "$needed" ]; then
    # They are others' from now on, and dpkg must not remember that they were to go.
    awk '{ print $1, "install" }' <<<"$needed" | dpkg --set-selections
    sed -i "/^$1 /d" "$RECORD"
    say "kept    packages that others have come to need: ${needed//$'\n'/ }"
    count=$((count - $(wc -l <<<"$needed")))
  fi
  [ "$count" -eq 0 ] || removed "$count packages that it installed $2"
}

close_record() {
  if [ -n "$(ours engine)" ] || engine_answers; then
    sed -i '/^file /d' "$RECORD"
  else # what was on the engine that is gone
    sed -i -E '/^(container|volume|plugin|image|cache|file|engine-id) /d' "$RECORD"
  fi
  grep -qv '^engine-id ' "$RECORD" || rm -rf "$STATE"
  say "done in $(seconds) s"
  [ -z "$KEPT" ] || die "what is kept stays on record: run --clean again when nothing needs it"
}

# --- --clean: the engine --------------------------------------------------------------------------

clean_engine() {
  local others
  [ -n "$(ours engine)" ] || return 0
  if is_ours engine installed; then
    others=$(on_engine)
    if [ -n "$others" ]; then
      say "kept    Docker Engine: there is more on it, $others"
    else
      remove_engine
    fi
  elif [ -n "$(docker ps --quiet)" ]; then
    say "kept    Docker Engine running: it runs containers"
  else
    stop_engine
    sed -i '/^engine /d' "$RECORD"
    rm -f "$ENGINE_LOG"
    say "stopped Docker Engine, which did not run before"
  fi
}

on_engine() { # what there is on the engine, counted
  local words=()
  engine_answers || return 0
  count containers docker container ls --all --quiet
  count images docker image ls --quiet
  count volumes docker volume ls --quiet
  count plugins docker plugin ls --quiet
  count networks docker network ls --quiet --filter type=custom
  say "${words[*]}"
}

count() { # count WHAT COMMAND...: adds the number of the command's distinct lines to words
  local number
  number=$("${@:2}" | sort -u | wc -l)
  [ "$number" -eq 0 ] || words+=("$1: $number")
}

remove_engine() {
  local directory
  stop_engine
  clean_network
  clean_packages engine-package "for Docker Engine"
  while read -r directory; do
    ! remove_tree "$directory" || forget engine-directory "$directory"
  done < <(ours engine-directory)
  clean_group
  rm -f "$ENGINE_LOG"
  [ -n "$(ours engine-directory)" ] || sed -i '/^engine /d' "$RECORD"
}

stop_engine() {
  local pid
  if by_systemd; then
    quietly systemctl stop docker.socket docker.service
    return
  fi
  pid=$(cat "$ENGINE_PID" 2>/dev/null) && is_dockerd "$pid" || return 0
  kill "$pid"
  timeout 60 tail --pid="$pid" --follow /dev/null ||
    die "the engine, process $pid, does not end: end it, then run this again"
}

# What an engine leaves in the kernel until the next boot: its firewall rules, its bridge, and that
# the machine forwards packets.
clean_network() {
  local tool
  is_ours network docker0 || return 0
  for tool in iptables ip6tables; do
    ! command -v "$tool" >/dev/null ||
      "$tool-save" 2>/dev/null | without_docker | "$tool-restore" --noflush 2>/dev/null || true
  done
  ip link delete docker0 2>/dev/null || true # where there is no ip, it stays
  ! is_ours network FORWARD=ACCEPT || iptables --policy FORWARD ACCEPT 2>/dev/null || true
  ! is_ours network ip_forward=0 || echo 0 >/proc/sys/net/ipv4/ip_forward
  sed -i '/^network /d' "$RECORD"
}

# What iptables-save prints becomes the iptables-restore that takes Docker's rules and chains away.
without_docker() {
  awk '
    /^\*/ { print; chains = "" }
    /^:DOCKER/ { chain = substr($1, 2); print "-F " chain; chains = chains "-X " chain "\n" }
    /^-A/ && !/^-A DOCKER/ && /docker0|DOCKER/ { sub(/^-A/, "-D"); print }
    /^COMMIT/ { printf "%s", chains; print }'
}

clean_group() {
  local group
  is_ours group docker || return 0
  group=$(getent group docker) || group=''
  if [ -n "$group" ] && [ -z "${group##*:}" ]; then
    groupdel docker
    removed "the group docker"
  fi
  forget group docker
}

# --------------------------------------------------------------------------------------------------

case $#,${1:-} in
  0,) run=quickstart ;;
  1,--clean) run=clean ;;
  1,--help | 1,-h)
    sed -n '2,/^# Failure/{/^# Failure/d; s/^# \{0,1\}//; p}' scripts/quickstart.sh
    exit
    ;;
  *)
    say 'usage: scripts/quickstart.sh [--clean]   (--help says more)' >&2
    exit 2
    ;;
esac
check_machine
check_endpoint
one_at_a_time
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"$run"
