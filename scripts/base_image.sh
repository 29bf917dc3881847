#!/usr/bin/env bash
# Makes sure that the Docker engine has the base image of this project's Dockerfiles:
#
#     scripts/base_image.sh [--fresh] [TAG]        # default debian:trixie-slim
#
# It takes the first that works: the engine has it; `docker pull`; the same base made here from
# Debian's packages and imported under TAG. With MDVP_CACHE=DIR the made base is kept in DIR and used
# again for 7 days; without, nothing is kept. With --fresh what was there before does not count.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

fresh=
[[ ${1:-} != --fresh ]] || { fresh=yes; shift; }
tag=${1:-debian:trixie-slim}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
bundle=/etc/ssl/certs/ca-certificates.crt

has_tag() { docker image inspect "$tag" >/dev/null 2>&1; }

need_tools() {
    if ! command -v mmdebstrap >/dev/null || [[ ! -e $keyring ]]; then
        apt_install mmdebstrap debian-archive-keyring
    fi
}

# True if this machine trusts a certificate that Debian's package does not ship, for the registries
# may be reachable only with it. Only then does the base get this machine's bundle: a base made on
# a plain machine stays like the official one, and an image built on it can be given away.
trusts_more_than_debian() {
    [[ -e $bundle ]] &&
        { cat /usr/share/ca-certificates/*/*.crt 2>/dev/null || true; } |
        grep -vxFf - "$bundle" >/dev/null
}

# The end of making the base in the directory $1, besides what dpkg and apt are told for good. What
# is told to apt here it must not hear earlier: mmdebstrap needs the packages that it downloads.
# shellcheck disable=SC2016 # $1 is for the shell that mmdebstrap starts.
finish='
set -e
cat >"$1/etc/apt/apt.conf.d/docker-clean" <<END
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
# A package installed in a Dockerfile must not start its service.
printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
rm -f "$1"/var/cache/apt/*.bin "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old
find "$1/var/log" -type f -delete
# Those of this machine, which mmdebstrap has copied.
rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'

# Writes the base to the file $1, trimmed as the official slim image and so that later
# installations are, too.
make_base() {
    local options=() path
    for path in doc info linda lintian/overrides locale man; do
        options+=(--dpkgopt="path-exclude=/usr/share/$path/*")
    done
    if trusts_more_than_debian; then
        # The second copy is for ca-certificates: installed in a Dockerfile, it writes the bundle
        # anew from its own certificates and those in this directory.
        for path in "$bundle" /usr/local/share/ca-certificates/host.crt; do
            options+=(--customize-hook="install -D -m 644 $bundle \"\$1$path\"")
        done
    fi
    mmdebstrap --quiet --format=tar --variant=minbase --keyring="$keyring" \
        --skip=chroot/policy-rc.d,output/dev \
        "${options[@]}" \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt=force-unsafe-io \
        --aptopt='Acquire::Languages "none"' \
        --customize-hook="$finish" \
        trixie "$1"
}

import_base() {
    local changes=(--change 'CMD ["bash"]')
    # pip has certificates of its own and looks at no others unless told.
    if trusts_more_than_debian; then
        changes+=(--change "ENV PIP_CERT=$bundle")
    fi
    docker import "${changes[@]}" "$1" "$tag" >/dev/null ||
        die "docker cannot import it: is there room on the engine's disk?"
}

need_engine
if [[ -z $fresh ]] && has_tag; then
    say "base image $tag is there"
    exit
fi
say "pulling the base image $tag"
if timeout 120 docker pull --quiet "$tag" >/dev/null 2>&1; then
    say "pulled $tag"
    exit
fi
[[ $tag == *trixie* ]] ||
    die "$tag cannot be pulled, and only trixie can be made here: check the network or the tag"

cached=${MDVP_CACHE:+$MDVP_CACHE/debian-trixie-slim.tar}
# Not from the cache if the certificates have changed since.
if [[ -z $fresh && -n $cached && $(find "$cached" -mtime -7 2>/dev/null) && ! $bundle -nt $cached ]]; then
    say "no registry: importing $cached"
    import_base "$cached"
else
    need_tools
    say "no registry: making $tag from Debian's packages, which takes about half a minute"
    place=${MDVP_CACHE:-${TMPDIR:-/tmp}}
    { mkdir -p "$place" && work=$(mktemp -d "$place/mdvp-base.XXXXXX"); } 2>/dev/null ||
        die "cannot write to $place: set MDVP_CACHE to a directory with 100 MB free"
    trap 'rm -rf "$work"' EXIT
    make_base "$work/base.tar" ||
        die 'mmdebstrap failed, see above: check the way to a Debian mirror, and try as root'
    import_base "$work/base.tar"
    # Renamed when whole, so that an interrupted run leaves nothing that looks like a base.
    [[ -z $cached ]] || mv "$work/base.tar" "$cached"
fi
size=$(docker image inspect --format '{{.Size}}' "$tag")
say "base image $tag is there, $((size / 1000000)) MB"
