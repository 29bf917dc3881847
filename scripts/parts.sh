# shellcheck shell=bash
# The steps that building for this engine and releasing for others are made of. To be sourced from
# the root of the repository, after scripts/lib.sh.

build_image() { # build_image TARGET IMAGE [OPTION...]: redis-sync or sync, under the name IMAGE
  build sync/image/Dockerfile "$2" --target "$1" "${@:3}"
}

# What the engine makes a plugin of. All files get one time, so that the same content is the same
# plugin whenever it is made.
fill_plugin() ( # fill_plugin DIRECTORY STAMP: the file system with STAMP in it, and config.json
  rm -rf "$1/rootfs"
  mkdir -p "$1/rootfs"
  [ "$1" -ef plugin ] || cp plugin/config.json "$1/"
  # It is never started, so it needs no command; but docker wants one.
  container=$(docker create "$ROOTFS_IMAGE" true)
  trap 'docker rm "$container" >/dev/null' EXIT
  docker export "$container" | tar --extract --directory "$1/rootfs" ||
    die "the plugin's files cannot be put into $1/rootfs: is there room on the disk?"
  # The engine makes no second plugin of the very same content, under whatever name.
  printf '%s\n' "$2" >"$1/rootfs/etc/mdvp-plugin"
  find "$1/rootfs" -exec touch --no-dereference --date=2000-01-01T00:00:00Z {} +
)
