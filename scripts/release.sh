#!/usr/bin/env bash
# Releases this tree: builds the plugin and the images for the engine's architecture, and pushes them:
#
#   scripts/release.sh [--fresh] [--sys-admin] REGISTRY TAG
#   scripts/release.sh registry.example:5000/team 0.1.0
#
# With --sys-admin it is the plugin that may have readers and limits of volumes, alone:
# REGISTRY/mdvp:TAG-sys-admin-ARCH.
#
# REGISTRY/mdvp:TAG-ARCH is the plugin, REGISTRY/redis-sync:TAG and REGISTRY/sync:TAG are the images,
# and REGISTRY/mdvp-command:TAG is the command `mdvp`, for those who have it not on the host.
# The engine takes no plugin from a list of architectures, so a plugin's tag names its own; an image's
# TAG is such a list, of all REGISTRY/...:TAG-ARCH that are there. For another architecture run this
# there, with the same tree. With --fresh Debian's packages are those of today, and not those of an
# earlier build.
#
# Failure model. What a tag names does not change: if a TAG-ARCH is there with other content, nothing
# is pushed. TAG comes last. A run that was cut off is made good by the next one here, which builds the
# same from what the engine has kept. The engine is left with the images, under these names, and as
# before otherwise: the plugin is on it under its name in the registry for as long as it takes to push
# it. That name is in build/release/ meanwhile, for should this be killed, the next run has to know
# that it is no plugin that somebody has installed. A question that the registry does not answer
# within a minute ends this; a push may take as long as it takes, and SIGINT or SIGTERM end it, too.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/parts.sh

usage() {
  printf 'usage: scripts/release.sh [--fresh] [--sys-admin] REGISTRY TAG\n' >&2
  die "$*"
}

fresh=() rights=()
[ "${1:-}" != --fresh ] || { fresh=(--no-cache); shift; }
[ "${1:-}" != --sys-admin ] || { rights=(--sys-admin); shift; }
[ $# -eq 2 ] || usage "it takes a registry and a tag, not $# arguments"
REGISTRY=$1 TAG=$2
[[ $REGISTRY =~ ^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$ ]] ||
  usage "'$REGISTRY' is no place in a registry: HOST[:PORT][/PATH], or a name on Docker Hub"
[[ $TAG =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,107}$ ]] || # with the rights and the architecture at most 128
  usage "'$TAG' cannot be a tag: letters, digits, dots, dashes and underscores"

# Says of which sources this is, and what is not as one expects of a release.
revision() {
  if ! REVISION=$(git rev-parse HEAD 2>"$WORK/error"); then
    REVISION=unknown
    say "note: nobody can tell its revision, as git says of this directory: $(head -n 1 "$WORK/error")"
  elif [ -n "$(git status --porcelain)" ]; then
    REVISION=$REVISION-dirty
    say "note: there are changes that are not committed: the revision is $REVISION"
  elif ! git describe --tags --exact-match >/dev/null 2>&1; then
    say "note: the revision $REVISION has no tag in git"
  fi
  [ "${TAG#v}" = "$VERSION" ] || say "note: the version in it is $VERSION, the tag is $TAG"
}

# The client asks the registry itself, and trusts it no more than the engine does.
trust() {
  local insecure
  insecure=$(docker info --format '{{range .RegistryConfig.IndexConfigs}}{{if not .Secure}}{{println .Name}}{{end}}{{end}}')
  case ${REGISTRY%%/*} in
    localhost | localhost:* | 127.*) TRUST=(--insecure) ;;
    *) ! grep -qxF "${REGISTRY%%/*}" <<<"$insecure" || TRUST=(--insecure) ;;
  esac
}

manifest() { # manifest NAME [OPTION]: what the registry has under that name, nothing if it has not
  timeout 60 docker manifest inspect "${TRUST[@]}" "${@:2}" "$1" 2>"$WORK/error" || {
    [ $? -ne 124 ] || die "the registry has not said within a minute whether it has $1: is it well?"
    grep -q '^no such manifest' "$WORK/error" ||
      die "the registry does not say whether it has $1 (docker login?): $(tail -n 1 "$WORK/error")"
  }
}

refuse_others() { # refuse_others NAME DIGEST: if NAME is there, and there is no DIGEST in it
  local there
  there=$(manifest "$1" --verbose)
  [ -z "$there" ] || [[ $there == *"\"$2\""* ]] ||
    die "$1 is in the registry already, with other content: choose another tag; nothing is pushed"
}

refuse_other_list() { # refuse_other_list NAME: if NAME is there with what is in no NAME-ARCH
  local list parts digests digest
  list=$(manifest "$1")
  [ -n "$list" ] || return 0
  parts=$(each_architecture "$1" manifest --verbose)
  mapfile -t digests < <(grep -o 'sha256:[0-9a-f]*' <<<"$list")
  for digest in "${digests[@]}"; do
    [[ $parts == *"\"$digest\""* ]] ||
      die "$1 is in the registry already, and is more than $1-ARCH: choose another tag; nothing is pushed"
  done
}

each_architecture() { # each_architecture NAME COMMAND [ARGUMENT]: those of Docker on Debian
  local architecture
  for architecture in 386 amd64 arm arm64 mips64le ppc64le riscv64 s390x; do
    "$2" "$1-$architecture" "${@:3}"
  done
}

name_if_there() { # name_if_there NAME
  local there
  there=$(manifest "$1") || exit # for this runs in a subshell
  [ -z "$there" ] || say "$1"
}

remove_plugin() {
  # It may not have come to be. Without --force, for it was never enabled: if it is, it is not ours.
  docker plugin rm "$PLUGIN" >/dev/null 2>&1 || true
  rm -f "$OURS"
}

free_name() { # of what a run that was killed has left, and of nothing else
  ! docker plugin inspect "$PLUGIN" >/dev/null 2>&1 || [ -e "$OURS" ] ||
    die "this engine has a plugin named $PLUGIN already: release on another, or docker plugin rm it"
  [ ! -e "$OURS" ] || remove_plugin
}

create_plugin() {
  : >"$OURS"
  docker plugin create "$PLUGIN" "$WORK/plugin" >/dev/null || {
    rm "$OURS" # what has the name by now is another's
    die "the engine makes no plugin $PLUGIN; the reason is above"
  }
}

build_for_release() { # build_for_release IMAGE NAME [OPTION...]
  case $1 in
    # What the plugin is made of has just been built, with --fresh or not.
    mdvp-command) build plugin/rootfs-Dockerfile "$2" "${@:3}" ;;
    *) build_image "$1" "$2" "${fresh[@]}" "${@:3}" ;;
  esac
}

push() { # push KIND NAME: KIND is plugin or image
  # It ends with this script, however that ends: else it would hang on where the registry does.
  setpriv --pdeathsig=TERM docker "$1" push "$2" >"$WORK/output" 2>&1 || {
    tail -n 3 "$WORK/output" >&2
    die "pushing $2 failed: run this again when the registry takes it, and with the same tree"
  }
  say "pushed $2"
}

push_list() { # push_list NAME: of all NAME-ARCH
  local there parts
  there=$(each_architecture "$1" name_if_there)
  mapfile -t parts <<<"$there"
  docker manifest rm "$1" >/dev/null 2>&1 || true # what the client has kept of an earlier one
  { timeout 60 docker manifest create "${TRUST[@]}" "$1" "${parts[@]}" &&
    timeout 60 docker manifest push "${TRUST[@]}" --purge "$1"; } >/dev/null ||
    die "pushing $1 failed, or took a minute; the reason is above: run this again, with the same tree"
  say "pushed $1, which is ${parts[*]##*-}"
}

need_engine
docker manifest --help >/dev/null 2>&1 ||
  die "this docker client has no manifests: use one of Docker 20.10 or later"
VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' mdvp/__init__.py)
ARCHITECTURE=$(docker version --format '{{.Server.Arch}}')
PLUGIN=$REGISTRY/mdvp:$TAG${rights[0]:+-sys-admin}-$ARCHITECTURE
IMAGES=(redis-sync sync mdvp-command)
[ ${#rights[@]} -eq 0 ] || IMAGES=()
TRUST=()
export BUILDX_NO_DEFAULT_ATTESTATIONS=1 # with them an image is a list already, and goes into no other
OURS=$PWD/build/release/$(docker info --format '{{.ID}}').${PLUGIN//[\/:]/_}
WORK=build/release/work
mkdir -p build/release
exec 9>build/release/lock
flock --nonblock 9 || die "another release from this directory is under way: wait for its end"
trap '[ ! -e "$OURS" ] || remove_plugin; rm -rf "$WORK"' EXIT
rm -rf "$WORK" # of a run that was killed
mkdir "$WORK"

trust
revision
free_name
manifest "$PLUGIN" >/dev/null # an answer, before the building begins
# Nor is the lock held by what is being built, when this is killed.
scripts/base_image.sh ${fresh:+--fresh} 9>&-
build plugin/rootfs-Dockerfile "$ROOTFS_IMAGE" "${fresh[@]}" --iidfile "$WORK/rootfs" 9>&-
ROOTFS_IMAGE=$(cat "$WORK/rootfs") # whatever is built under that name meanwhile
fill_plugin "$WORK/plugin" "$PLUGIN $VERSION $REVISION $(sha256sum <plugin/config.json)" "${rights[@]}"
create_plugin
for image in "${IMAGES[@]}"; do
  build_for_release "$image" "$REGISTRY/$image:$TAG-$ARCHITECTURE" \
    --label org.opencontainers.image.title="mdvp/$image" \
    --label org.opencontainers.image.version="$VERSION" \
    --label org.opencontainers.image.revision="$REVISION" \
    --label org.opencontainers.image.licenses=MIT 9>&-
done
say "built mdvp $VERSION for $ARCHITECTURE"

refuse_others "$PLUGIN" "$(docker plugin inspect --format '{{index .Config.Rootfs.DiffIds 0}}' "$PLUGIN")"
for image in "${IMAGES[@]}"; do
  name=$REGISTRY/$image:$TAG
  refuse_others "$name-$ARCHITECTURE" \
    "$(docker image inspect --format '{{.Id}}' "$name-$ARCHITECTURE")"
  refuse_other_list "$name"
done

push plugin "$PLUGIN"
for image in "${IMAGES[@]}"; do push image "$REGISTRY/$image:$TAG-$ARCHITECTURE"; done
for image in "${IMAGES[@]}"; do push_list "$REGISTRY/$image:$TAG"; done
say "released; users install it with (see docs/install.md)
  docker plugin install --alias mdvp $PLUGIN$(for image in "${IMAGES[@]}"; do printf '\n  docker pull %s' "$REGISTRY/$image:$TAG"; done)"
