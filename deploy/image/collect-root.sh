#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Collects the contents of the run-time image: the stripped executable and the shared libraries that it needs.
#
#   deploy/image/collect-root.sh EXECUTABLE DIRECTORY
#
# DIRECTORY becomes the root of a file system: usr/bin/switchyard, the libraries where the loader looks for them, the loader
# itself, the certificate authorities for HTTPS, and the libraries' licences. It runs in the image's builder stage, or after a
# build for the `prebuilt` stage (see deploy/Containerfile). Needs ldd, and strip for a small executable.
set -eu

if [ $# -ne 2 ] || [ ! -x "$1" ]; then
    echo "usage: $0 EXECUTABLE DIRECTORY   (EXECUTABLE must exist; 'make build' makes .build/release/switchyard)" >&2
    exit 2
fi
executable=$1
root=$2

rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/etc/ssl/certs" "$root/mnt" "$root/tmp"
chmod 1777 "$root/tmp"
program=$root/usr/bin/$(basename "$executable")
cp "$executable" "$program"
if command -v strip >/dev/null 2>&1; then strip "$program"; fi

# Debian's file systems have /lib and /lib64 as links into /usr.
for name in lib lib64; do ln -s "usr/$name" "$root/$name"; done

# `name => /path (address)` for a library, `/path (address)` for the loader.
libraries=$(ldd "$executable" | sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p')
if ldd "$executable" | grep 'not found' >&2; then
    echo "error: these libraries are missing here; deploy/install-packages.sh build installs them" >&2
    exit 1
fi
for library in $libraries; do
    case $library in
    /lib/* | /lib64/*) target=$root/usr$library ;;
    *) target=$root$library ;;
    esac
    mkdir -p "$(dirname "$target")"
    cp -L "$library" "$target"
    # The image distributes the libraries, so their licences must come along.
    real=$(readlink -f "$library")
    package=$(dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}" 2>/dev/null || true)
    package=${package%%:*}
    if [ -n "$package" ] && [ -f "/usr/share/doc/$package/copyright" ]; then
        mkdir -p "$root/usr/share/doc/$package"
        cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    fi
done
mkdir -p "$root/usr/lib64"

# Look names up in /etc/hosts first: compose puts extra_hosts there.
printf 'passwd: files\ngroup: files\nhosts: files dns\n' > "$root/etc/nsswitch.conf"
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
else
    echo "note: no /etc/ssl/certs/ca-certificates.crt here; 'tls' and 'pull' need one in the image" >&2
fi
du -sh "$root" >&2
