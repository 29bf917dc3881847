#!/usr/bin/env bash
# Builds the managed plugin and gives it to the engine:
#
#   scripts/build_plugin.sh [--sys-admin] [--enable]
#
# With --sys-admin the plugin may do what takes CAP_SYS_ADMIN: readers and limits of volumes. What that
# costs is in docs/security.md; that of an older plugin is not kept.
#
# Fills plugin/rootfs/ and runs `docker plugin create mdvp plugin`. The image mdvp/mdvp stays, for
# `docker run --rm -v /run/docker/plugins:/run/docker/plugins mdvp/mdvp ls`. An older plugin of that name is
# replaced, with its settings kept, unless a running container has one of its volumes; volumes and
# their content are not touched. PLUGIN_NAME gives the plugin another name.
#
# Failure model. The settings say where the volumes are. From before the old plugin goes until the new
# one has them, they are in plugin/settings/, too; a run that ends in between is made good by the next.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/parts.sh

NAME=${PLUGIN_NAME:-mdvp}
case $NAME in
  *:*) DRIVER=$NAME ;;
  *) DRIVER=$NAME:latest ;;
esac

DIRECTORY=plugin enable='' rights=()
for argument; do
  case $argument in
    --enable) enable=yes ;;
    --sys-admin) DIRECTORY=build/plugin-sys-admin rights=(--sys-admin) ;;
    *) die "unknown argument $argument: there are --sys-admin and --enable" ;;
  esac
done

users() { # the running containers that have a volume of the plugin, by name
  local volume
  docker volume ls --quiet --filter "driver=$DRIVER" | while read -r volume; do
    docker ps --filter "volume=$volume" --format '{{.Names}} has the volume '"$volume"
  done
}

settings() { # what `docker plugin set` would be given to have the plugin as it is
  # A mount is made as Config has it. Settings has it as it was, once the engine was started anew, or
  # the plugin upgraded.
  docker plugin inspect "$NAME" --format \
    '{{range .Settings.Env}}{{.}}{{println}}{{end}}{{range .Config.Mounts}}{{if .Settable}}{{.Name}}.source={{.Source}}{{println}}{{end}}{{end}}'
}

refuse_if_in_use() {
  local user
  user=$(users)
  [ -z "$user" ] || die "the plugin $NAME is in use: container ${user%%$'\n'*}; stop it first"
}

keep_settings() { # unless a run that was cut off has left them: what is there now is half-made
  [ ! -e "$KEPT" ] || return 0
  mkdir -p "${KEPT%/*}"
  settings | grep . >"$KEPT.new" || true # grep fails when there are none
  mv "$KEPT.new" "$KEPT"
}

give_settings() {
  local kept
  [ -e "$KEPT" ] || return 0
  mapfile -t kept <"$KEPT"
  [ ${#kept[@]} -eq 0 ] || docker plugin set "$NAME" "${kept[@]}" ||
    die "the plugin $NAME does not take the settings of the one before: give it those in $PWD/$KEPT" \
      "(docker plugin set), and remove that file"
  rm "$KEPT"
}

note_rights() { # that the old plugin had, and the new one has not
  [ ${#rights[@]} -eq 0 ] || return 0
  case $(docker plugin inspect "$NAME" --format '{{.Config.Linux.Capabilities}}') in
    *CAP_SYS_ADMIN*) say "note: the plugin before had CAP_SYS_ADMIN, for readers and limits; this one has not" ;;
  esac
}

remove_old() {
  refuse_if_in_use # by now, as the build takes its time
  note_rights
  keep_settings
  docker plugin disable --force "$NAME" >/dev/null 2>&1 || true # it may be disabled already
  docker plugin rm --force "$NAME" >/dev/null
}

need_engine
refuse_if_in_use
scripts/base_image.sh
build plugin/rootfs-Dockerfile "$ROOTFS_IMAGE"
mkdir -p build
exec 9>build/plugin.lock
flock 9 # one at a time fills plugin/rootfs/
fill_plugin "$DIRECTORY" "$NAME" "${rights[@]}"
# An engine's id and the plugin's name tell whose they are.
KEPT=plugin/settings/$(docker info --format '{{.ID}}').${NAME//\//_}
! docker plugin inspect "$NAME" >/dev/null 2>&1 || remove_old
docker plugin create "$NAME" "$DIRECTORY" >/dev/null ||
  die "the engine takes no plugin $NAME; run this again: the settings of the one before are kept"
give_settings
say "created the plugin $NAME"
if [ "$enable" ]; then
  docker plugin enable "$NAME" >/dev/null ||
    die "$NAME does not start; the engine's log says why: journalctl -u docker | grep plugin="
  say "enabled the plugin $NAME"
fi
