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
# engine must have our label, or the id that is noted. What others have come to use stays, and is
# named. What an engine sets in the kernel (docker0, firewall rules, forwarding) is there until the
# next boot. Lists, caches and logs of apt-get and dpkg are the system's and stay, as build/ here does.
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
  local status=$? word=failed
  exec >&3 2>&4
  [ "$status" -lt 128 ] || word=stopped
  [ -z "$IN_STEP" ] || { say "$word" && cat "$STATE/output" >&2; }
  [ "$run" = clean ] || settle
  [ "$word" = failed ] ||
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
engine_id() { docker info --format '{{.ID}}'; }
has() { docker "$1" inspect "$2" >/dev/null 2>&1; } # has KIND NAME
look() { docker "$1" inspect "$2" --format "$3"; }  # look KIND NAME FORMAT
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
  getent group docker || note remove_group
  note_paths /var/lib/docker /var/lib/containerd /etc/docker /etc/containerd /etc/cni \
    /opt/containerd /run/docker /run/containerd
  note_packages engine-packages "${packages[@]}"
  note stop_engine
  alone apt-get -qq install --no-install-recommends -o APT::Keep-Downloaded-Packages=false \
    "${packages[@]}"
  hash -r
  start_engine
}

# What must not end half-way with this script has neither its output nor its lock, but one of its own.
alone() { setsid --wait flock --close "$STATE" "$@" 3>&- 4>&- 8>&-; }

start_engine() {
  ! by_systemd || systemctl start docker
  # Left by an engine that was killed, its number may be another process', and dockerd would not start.
  grep -qsx dockerd "/proc/$(cat /run/docker.pid 2>/dev/null)/comm" || rm -f /run/docker.pid
  engine_answers || setsid --fork dockerd >>"$STATE/dockerd.log" 2>&1 </dev/null 3>&- 4>&- 8>&-
  wait_for 60 "the engine does not start: journalctl --unit docker, or $STATE/dockerd.log, says why" \
    engine_answers
  check_engine
}

check_engine() { # what is noted is of one engine: --clean must not meet others' things of our names
  docker plugin ls >/dev/null ||
    die "what answers has no managed plugins, like podman: install Docker Engine instead"
  [ "$(docker info --format '{{.KernelVersion}}')" = "$(uname -r)" ] ||
    die "the engine is on another machine, with another kernel: run it there, on Linux"
  [ -s "$STATE/engine-id" ] || engine_id >"$STATE/engine-id"
  [ "$(engine_id)" = "$(cat "$STATE/engine-id")" ] ||
    die "what it made is on another engine: use that one, or delete $STATE to forget it"
  [ "$run" = clean ] || check_names
  remark "$(docker version --format '{{.Server.Version}}')"
}

check_names() { # that they are free, before minutes of building
  local driver
  driver=$(look volume "$VOLUME" '{{.Driver}}' 2>/dev/null) || driver=$PLUGIN:latest
  [ "$driver" = "$PLUGIN:latest" ] ||
    die "there is a volume $VOLUME of the driver $driver: remove it, docker volume rm $VOLUME"
  ! has container "$CONTAINER" ||
    look container "$CONTAINER" '{{range .Mounts}}{{println .Name .Destination}}{{end}}' |
    grep -xF "$VOLUME /foo" >/dev/null ||
    die "there is a container $CONTAINER without $VOLUME at /foo: remove or docker rename it"
}

make_base_image() {
  # Where no registry is reachable, base_image.sh makes the base, and installs these for it, while
  # a file keeps services from being started.
  if command -v apt-get && ! command -v mmdebstrap; then
    apt-get -qq update
    note_paths /usr/sbin/policy-rc.d
    note_packages base-packages mmdebstrap debian-archive-keyring
  fi
  rm -f "$STATE/image-id"
  note remove image "$BASE_IMAGE"
  install --directory --mode=1777 "$STATE/tmp" # apt-get works there as another user
  TMPDIR=$STATE/tmp alone scripts/base_image.sh
}

build_plugin() {
  note_paths "$PWD/plugin/rootfs"
  rm -f "$STATE/plugin-id"
  # shellcheck disable=SC2046 # it is one or none
  grep -qs ^remove_plugin "$STATE/made" || note remove_plugin "$PLUGIN" $(plugin_folder)
  note remove image "$ROOTFS_IMAGE"
  note remove_leftovers
  scripts/build_plugin.sh --enable
}

# The plugin's folder is .mdvp, or .mdvp- and something where somebody else has that name. Only root
# can have put a key into a directory that is root's alone.
plugin_folder() {
  find /tmp -maxdepth 1 -name '.mdvp*' -type d -user root -perm 700 -exec test -f '{}/key' ';' -print
}
plugin_enabled() { look plugin "$PLUGIN" '{{.Enabled}}' 2>&1; }
volumes_root() {
  look plugin "$PLUGIN" '{{range .Config.Mounts}}{{if eq .Name "data"}}{{.Source}}{{end}}{{end}}'
}

use_container() {
  local there="the container $CONTAINER, which was there already"
  case $(look container "$CONTAINER" '{{.State.Status}}' 2>/dev/null || true) in
    '')
      step "starting the container $CONTAINER" healthy run --detach --name "$CONTAINER" \
        --volume "$VOLUME:/foo" --volume-driver="$PLUGIN" --label "$LABEL=container" "$SYNC_IMAGE"
      ;;
    running) step "$there" healthy start "$CONTAINER" ;;
    paused) step "unpausing $there" healthy unpause "$CONTAINER" ;;
    *) step "starting $there" healthy start "$CONTAINER" ;;
  esac
}
healthy() { # healthy DOCKER-COMMAND...: runs it, and waits for the container
  docker "$@"
  wait_for 90 "the container is not healthy: docker logs $CONTAINER says why" is_healthy
  remark healthy
}
is_healthy() {
  local state
  state=$(look container "$CONTAINER" '{{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}')
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
  use_container
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
  apt-get --simulate install --no-install-recommends "${@:2}" |
    awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }' >>"$STATE/$1"
  note remove_packages "$1"
}
only_there() { # only_there LIST: strikes off what is not installed
  # shellcheck disable=SC2016 # for dpkg-query
  sort -u "$STATE/$1" |
    xargs -r dpkg-query --show --showformat '${db:Status-Status} ${binary:Package}\n' 2>/dev/null |
    sed '/^not-installed/d; s/.* //' >"$STATE/left" || true
  mv "$STATE/left" "$STATE/$1"
}

# At the end of a run: what was not made must not be taken for ours once somebody else has made it.
settle() {
  local list thing
  for list in "$STATE"/*-packages; do [ ! -e "$list" ] || only_there "${list##*/}"; done
  # Without an engine, nothing was made.
  [ -s "$STATE/engine-id" ] || command -v dockerd >/dev/null || rm -f "$STATE/made"
  [ "$(engine_id 2>&1)" = "$(cat "$STATE/engine-id" 2>&1)" ] || return 0
  for thing in "image $BASE_IMAGE" "plugin $PLUGIN"; do # these can have no label
    # shellcheck disable=SC2086 # it is two words
    if ! has $thing; then
      sed -i "/^remove.$thing/d" "$STATE/made"
    elif [ ! -s "$STATE/${thing%% *}-id" ]; then
      look $thing '{{.Id}}' >"$STATE/${thing%% *}-id"
    fi
  done
}

is_ours() { # is_ours KIND NAME
  case $2 in
    # Without an id, the run that made it was killed.
    "$BASE_IMAGE" | "$PLUGIN")
      [ ! -s "$STATE/$1-id" ] || [ "$(look "$1" "$2" '{{.Id}}')" = "$(cat "$STATE/$1-id")" ] ;;
    *) [[ $(docker "$1" inspect "$2") = *"\"$LABEL\": \"$1\""* ]] ;;
  esac
}

clean() { # the last first; what fails stays noted
  local command status
  if engine_answers; then
    check_engine
  elif [ -s "$STATE/engine-id" ] && command -v dockerd >/dev/null; then
    say "starting the engine, to remove what is on it"
    start_engine
  elif [ -s "$STATE/engine-id" ] && ! is_engine_ours; then
    die "no Docker Engine answers: start the one that the quickstart used, then run this again"
  fi # else nothing is on an engine
  while read -r command; do
    eval "$command" 2>&1 </dev/null && status=0 || status=$?
    case $status in
      0) forget "$command" ;;
      3) break ;; # others use the engine
      *) KEPT=yes ;;
    esac
  done < <(tac "$STATE/made")
  [ -z "$KEPT" ] || die "what is kept stays on record: run --clean again when nothing needs it"
  [ -s "$STATE/made" ] || rm -r --one-file-system "$STATE"
}

forget() { # forget COMMAND, as it is noted
  grep -vxF -e "$1" "$STATE/made" >"$STATE/left" || true # it may be the last line
  mv "$STATE/left" "$STATE/made"
}

keep() { say "kept    $*" && return 1; } # keep WHAT-AND-WHY

remove() { # remove KIND NAME [OPTION]
  local answer
  has "$1" "$2" && is_ours "$1" "$2" || return 0
  answer=$(docker "$1" rm "${@:3}" "$2" 2>&1) || keep "the $1 $2: $answer" || return
  say "removed the $1 $2"
}

# A build of the plugin that was killed leaves a container, which was never started.
remove_leftovers() {
  docker ps --all --quiet --filter "ancestor=$ROOTFS_IMAGE" | xargs -r docker rm >/dev/null
  docker image prune --force --filter label=mdvp.built-by=quickstart >/dev/null
}

remove_plugin() { # remove_plugin mdvp [FOLDER]: and its folder, unless this was there before
  local volumes removed folder=''
  has plugin "$PLUGIN" && is_ours plugin "$PLUGIN" || return 0
  # Disabled, it hides its volumes.
  [ "$(plugin_enabled)" = true ] || docker plugin enable "$PLUGIN" >/dev/null || return
  volumes=$(docker volume ls --quiet --filter "driver=$PLUGIN:latest")
  [ -z "$volumes" ] || keep "the plugin $PLUGIN: it has volumes, ${volumes//$'\n'/ }" || return
  # With another root now, it may still have volumes in /tmp.
  [ $# -gt 1 ] || [ "$(volumes_root)" != /tmp ] || folder=$(plugin_folder)
  removed=$(in_trash "$folder")
  [ -z "$removed" ] || keep "the plugin $PLUGIN: what was removed as $removed is in its trash;" \
    "docker volume create -d $PLUGIN -o restore=NAME -o on-remove=delete NAME, and docker volume rm NAME, deletes it" ||
    return
  docker plugin disable --force "$PLUGIN" >/dev/null || return
  [ -z "$folder" ] || remove_path "$folder"
  docker plugin rm "$PLUGIN" >/dev/null && say "removed the plugin $PLUGIN"
}

in_trash() { # in_trash FOLDER: the names of the volumes whose content is in the trash, if any
  [ -z "$1" ] || find "$1/removed" -mindepth 2 -maxdepth 2 -name volume \
    -execdir grep -oP '"name": "\K[^"]+' record.json ';' 2>/dev/null | paste -sd ' ' || true
}

remove_path() { # remove_path PATH: without what is mounted there, which may be somebody's
  [ -e "$1" ] || return 0
  awk -v at="$1/" 'index($5 "/", at) == 1 { print $5 }' /proc/self/mountinfo | tac |
    xargs -r umount || true
  rm -r --one-file-system "$1" && say "removed $1"
}

is_engine_ours() { [ -s "$STATE/engine-packages" ]; }

stop_engine() { # unless others have come to use it
  local other pid
  engine_answers || return 0
  other=$(docker ps --format 'container {{.Names}}' | tr '\n' ' ')
  ! is_engine_ours || other+=$(
    docker system df --format '{{.Type}}: {{.TotalCount}}' | grep -v ': 0$' | tr '\n' ' '
    docker plugin ls --quiet && docker network ls --filter type=custom --quiet
    dpkg --no-act --purge docker.io >/dev/null 2>&1 || say "a package that needs it"
  )
  [ -z "$other" ] || keep "Docker Engine: there is more on it, $other" || return 3
  if by_systemd; then
    systemctl stop 'docker.*' # the socket, too
  else
    pid=$(cat /run/docker.pid) && kill "$pid" && timeout 60 tail --pid="$pid" --follow /dev/null
  fi || die "the engine does not stop: stop it, then run this again"
  ! is_engine_ours || rm -f "$STATE/engine-id" # all that was on it is gone
  say "stopped Docker Engine; docker0, its firewall rules and forwarding stay until the next boot"
}

# dpkg and not apt-get: it leaves a package that others need, and removes none that is not named.
remove_packages() { # remove_packages LIST
  local answer count
  count=$(sort -u "$STATE/$1" | wc -l)
  if ! answer=$(sort -u "$STATE/$1" | xargs -r dpkg --purge 2>&1); then
    [[ $answer = *'dependency problems'* ]] || keep "packages: $(grep ^dpkg: <<<"$answer")" || return
    only_there "$1" # others' from now on, and dpkg must not remember that they were to go
    sed 's/$/ install/' "$STATE/$1" | dpkg --set-selections
    keep "packages that others have come to need: $(tr '\n' ' ' <"$STATE/$1")" ||
      count=$((count - $(wc -l <"$STATE/$1")))
  fi
  [ "$count" -eq 0 ] || say "removed $count packages that it installed"
}

remove_group() { # unless somebody was put into it
  [[ $(getent group docker) != *: ]] || { groupdel docker && say "removed the group docker"; }
}

case $#,${1:-} in
  0,) run=quickstart ;;
  1,--clean) run=clean ;;
  1,--help | 1,-h) sed -n '2,9s/^# \{0,1\}//p' scripts/quickstart.sh && exit ;;
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
exec 3>&1 4>&2 8<scripts/quickstart.sh # 9 is build_plugin.sh's lock
mkdir -p "$STATE" && touch "$STATE/made"
{ flock --nonblock 8 && flock --nonblock "$STATE" true; } || # the locks go with those who hold them
  die "it is running already: wait for that run to end"
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"$run"
