#!/bin/sh
# Makes a base image of Debian's own packages, where no registry can be reached or none is trusted:
#   deploy/docker/base.sh                                         # elea-base:bookworm
#   deploy/docker/base.sh elea-prometheus:bookworm prometheus     # one with more packages in it
# As root, with Debian's debootstrap. SUITE and MIRROR choose another release, and where it comes from.
set -eu

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
image=${1:-elea-base:$suite}
[ $# -eq 0 ] || shift
packages=$(echo "$*" | tr ' ' ',')

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase ${packages:+--include="$packages"} "$suite" "$folder/root" "$mirror" >"$folder/log" || {
    tail -5 "$folder/log" >&2
    exit 1
}
# Lists and archives of packages are for whoever installs more.
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/*
tar --create --numeric-owner --directory "$folder/root" . |
    docker import --change 'CMD ["/bin/sh"]' - "$image" >/dev/null
echo "made $image"
