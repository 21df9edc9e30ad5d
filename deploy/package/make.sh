#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian package, and a tarball for other systems, from a built executable.
#
#   deploy/package/make.sh EXECUTABLE GENERATE_MANUAL DIRECTORY
#
# For example, as `make package` does:
#   deploy/package/make.sh .build/release/switchyard .build/manual/debug/generate-manual .build/package
#
# GENERATE_MANUAL is swift-argument-parser's program of that name, which writes man pages. DIRECTORY gets
# switchyard_VERSION_ARCHITECTURE.deb and switchyard-VERSION-linux-MACHINE.tar.xz. The same commit and toolchain give the same
# files. Settings: PACKAGE_MAINTAINER="Name <address>"; SOURCE_DATE_EPOCH (the last commit's time).
set -euo pipefail

if [ $# -ne 3 ] || [ ! -x "$1" ] || [ ! -x "$2" ]; then
    sed -n '3,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
EXECUTABLE=$(realpath "$1")
GENERATE_MANUAL=$(realpath "$2")
mkdir -p "$3"
OUT=$(realpath "$3")
MAINTAINER=${PACKAGE_MAINTAINER:-Switchyard contributors <switchyard@switchyard.invalid>}
VERSION=$(sed -nE 's/.*current = "([^"]+)".*/\1/p' "$ROOT/Sources/ServiceKit/SoftwareVersion.swift")
ARCHITECTURE=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct)}
COMMIT=$(git -C "$ROOT" rev-parse --short=12 HEAD)
export SOURCE_DATE_EPOCH
# Ten times as fast as the highest level, for a sixth more bytes.
COMPRESSION=1
umask 022

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
DEB=$WORK/deb
DOC=$DEB/usr/share/doc/switchyard

[ "$("$EXECUTABLE" --version)" = "$VERSION" ] || {
    echo "error: $EXECUTABLE is version $("$EXECUTABLE" --version), and the sources are $VERSION; run 'make build'" >&2
    exit 1
}

# --- What both hold ---------------------------------------------------------------------------------------------------

stage_program() {
    install -D -m 0755 "$EXECUTABLE" "$DEB/usr/bin/switchyard"
    strip "$DEB/usr/bin/switchyard"

    install -D -m 0644 -t "$DEB/usr/lib/systemd/system" "$ROOT"/deploy/systemd/*.service
    install -D -m 0644 "$ROOT/deploy/systemd/switchyard.sysusers" "$DEB/usr/lib/sysusers.d/switchyard.conf"
    install -D -m 0640 -t "$DEB/etc/switchyard" "$ROOT"/deploy/systemd/*.env
    install -d "$DEB/var/lib/switchyard/shards"
}

stage_manuals() {
    local page name command
    install -d "$DEB/usr/share/man/man1" "$WORK/man"
    "$GENERATE_MANUAL" "$EXECUTABLE" --multi-page --date "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)" \
        --output-directory "$WORK/man" >/dev/null
    for page in "$WORK"/man/*.1; do
        # switchyard.gateway.1 becomes switchyard-gateway.1, as `man switchyard gateway` looks for it, and so does its name,
        # by which `man -k` finds it; a blank line of the text is a paragraph.
        name=$(basename "$page" .1)
        command=${name//./ }
        name=${name//./-}
        sed -E -e '/^\.(Xr|Dt) /s/([A-Za-z])\.([A-Za-z])/\1-\2/g' -e "/^\.Sh NAME/,/^\.Nd/s/^\.Nm .*/.Nm $name/" \
            -e "/^\.Sh SYNOPSIS/,/^\.Sh DESC/s/^\.Nm\$/.Nm \"$command\"/" -e 's/^[[:space:]]*$/.Pp/' "$page" |
            gzip -9n > "$DEB/usr/share/man/man1/$name.1.gz"
    done
}

stage_completions() {
    install -d "$DEB/usr/share/bash-completion/completions" "$DEB/usr/share/zsh/vendor-completions" \
        "$DEB/usr/share/fish/vendor_completions.d"
    "$EXECUTABLE" --generate-completion-script bash | sed '1{/^#!/d}' > "$DEB/usr/share/bash-completion/completions/switchyard"
    "$EXECUTABLE" --generate-completion-script zsh > "$DEB/usr/share/zsh/vendor-completions/_switchyard"
    "$EXECUTABLE" --generate-completion-script fish > "$DEB/usr/share/fish/vendor_completions.d/switchyard.fish"
}

# The licences of what is in the executable besides the project itself: Swift packages, and Swift's own libraries.
stage_licences() {
    local package file
    for package in "$ROOT"/.build/checkouts/*/; do
        for file in "$package"LICENSE* "$package"NOTICE*; do
            [ ! -f "$file" ] || install -D -m 0644 "$file" "$DOC/licences/$(basename "$package")/$(basename "$file")"
        done
    done
    file=$(dirname "$(dirname "$(readlink -f "$(command -v swift)")")")/share/swift/LICENSE.txt
    [ ! -f "$file" ] || install -D -m 0644 "$file" "$DOC/licences/swift/LICENSE.txt"
}

# --- The Debian package -----------------------------------------------------------------------------------------------

debian_documents() {
    cat > "$DOC/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Switchyard
Comment: The executable holds Swift's own libraries and Swift packages; their licences and notices are in
 /usr/share/doc/switchyard/licences.

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) The Switchyard contributors
License: Apache-2.0
 On Debian systems the text of the licence is in /usr/share/common-licenses/Apache-2.0.
COPYRIGHT
    {
        echo "switchyard ($VERSION) unstable; urgency=medium"
        printf '\n  * Version %s, built from commit %s.\n\n' "$VERSION" "$COMMIT"
        echo " -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n > "$DOC/changelog.gz"
}

# The packages of the shared libraries, with the versions that the executable needs.
shared_library_packages() {
    mkdir -p "$WORK/shlibs/debian"
    printf 'Source: switchyard\n\nPackage: switchyard\nArchitecture: any\n' > "$WORK/shlibs/debian/control"
    (cd "$WORK/shlibs" && dpkg-shlibdeps -O --ignore-missing-info "$DEB/usr/bin/switchyard" 2>"$WORK/shlibs.log") |
        sed -n 's/^shlibs:Depends=//p'
}

debian_control() {
    local depends
    depends=$(shared_library_packages)
    [ -n "$depends" ] || { cat "$WORK/shlibs.log" >&2; exit 1; }
    install -d "$DEB/DEBIAN"
    cat > "$DEB/DEBIAN/control" <<CONTROL
Package: switchyard
Version: $VERSION
Architecture: $ARCHITECTURE
Maintainer: $MAINTAINER
Installed-Size: $(du -sk --exclude=DEBIAN "$DEB" | cut -f 1)
Depends: $depends, systemd-standalone-sysusers | systemd-sysusers
Recommends: ca-certificates
Section: net
Priority: optional
Description: Switch Transformers served as a cluster
 Switchyard serves Switch Transformers, top-1 mixture-of-experts T5 models, on
 several machines: a gateway runs embeddings, attention and routing, and sends
 token rows to expert hosts over gRPC.
 .
 This package has the program for every part of a cluster, systemd units for
 the gateway and for expert hosts, man pages and completions. No service is
 started: settings come first, in /etc/switchyard.
CONTROL
    (cd "$DEB" && find etc -type f -printf '/%p\n' | sort > DEBIAN/conffiles)
    (cd "$DEB" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    install -m 0755 "$ROOT"/deploy/package/{postinst,prerm,postrm} "$DEB/DEBIAN/"
}

make_debian_package() {
    debian_documents
    debian_control
    dpkg-deb --root-owner-group -Zxz "-z$COMPRESSION" --build "$DEB" "$OUT/switchyard_${VERSION}_$ARCHITECTURE.deb" >/dev/null
}

# --- The tarball ------------------------------------------------------------------------------------------------------

# The executable looks for libraries in its own folder first; bin/ has a link to it. Only the C library itself comes from the
# system.
make_tarball() {
    local name tree library
    name=switchyard-$VERSION-linux-$(uname -m)
    tree=$WORK/$name
    mkdir -p "$tree/bin" "$tree/lib/switchyard" "$tree/share"
    mv "$DEB/usr/bin/switchyard" "$tree/lib/switchyard/"
    ln -s ../lib/switchyard/switchyard "$tree/bin/switchyard"
    for library in $(ldd "$EXECUTABLE" | sed -nE 's/.*=> (\/[^ ]+) .*/\1/p'); do
        case $(basename "$library") in
        libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | ld-linux*) continue ;;
        esac
        install -m 0644 "$library" "$tree/lib/switchyard/"
        # shellcheck disable=SC2016 # the loader's own word
        patchelf --set-rpath '$ORIGIN' "$tree/lib/switchyard/$(basename "$library")"
        library_licence "$library"
    done
    mv "$DEB/usr/lib/systemd" "$DEB/usr/lib/sysusers.d" "$tree/lib/"
    mv "$DEB/etc" "$tree/etc"
    mv "$DEB/usr/share/"* "$tree/share/"
    mv "$tree/share/zsh/vendor-completions" "$tree/share/zsh/site-functions"
    mv "$tree/share/doc/switchyard/licences" "$tree/licences"
    rm -r "$tree/share/doc"
    cp "$ROOT/LICENSE" "$tree/LICENSE"
    sed -e "s/@VERSION@/$VERSION/" -e "s/@COMMIT@/$COMMIT/" "$ROOT/deploy/package/INSTALL.md" > "$tree/INSTALL.md"
    XZ_OPT=-$COMPRESSION tar --create --xz --file "$OUT/$name.tar.xz" --directory "$WORK" --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" "$name"
}

library_licence() { # LIBRARY
    local real package
    real=$(readlink -f "$1")
    package=$(dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}" 2>/dev/null || true)
    package=${package%%:*}
    [ -z "$package" ] || install -D -m 0644 "/usr/share/doc/$package/copyright" "$DOC/licences/$package/copyright"
}

rm -f "$OUT"/switchyard_*.deb "$OUT"/switchyard-*.tar.xz
echo "Packing switchyard $VERSION."
stage_program
stage_manuals
stage_completions
stage_licences
make_debian_package
make_tarball
du -h "$OUT"/switchyard_*.deb "$OUT"/switchyard-*.tar.xz
