# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Bare Debian 12 roots for bare-check.sh, which sources this: made once, copied for every run, and entered in namespaces that
# end with the run, so no mount is visible outside or left behind.
#
#   roots_prepare           finds the toolchain and the mirror, or exits with status 3
#   root_make NAME LIST...  makes the root NAME from package lists, if it is missing or differs from them
#   root_copy NAME          a fresh copy of it; sets COPY
#   inside COMMAND...       runs a command in the copy, in /project
#   roots_end               ends what runs inside, and removes the copies

RELEASE=bookworm
BARE_DIR=${BARE_DIR:-$ROOT/.build/bare}
COPIES=""
COPY=""
CONTAINED=""
# Pairs of folders, outside and inside, that are bound read-only.
BINDS=()

cannot() { # WHY
    echo "bare-check: it cannot run here: $1" >&2
    exit 3
}

roots_prepare() {
    [ "$(id -u)" -eq 0 ] || cannot "making and entering a root needs root; run: sudo make bare-check"
    command -v apt-get >/dev/null || cannot "this is not Debian, and mmdebstrap needs apt"
    if ! "$ROOT/deploy/install-packages.sh" --check bare 2>/dev/null; then
        "$ROOT/deploy/install-packages.sh" bare >/dev/null || cannot "mmdebstrap cannot be installed (see above)"
    fi
    unshare --mount --pid --fork --propagation private true 2>/dev/null ||
        cannot "new mount and process namespaces are not permitted, as in a container without CAP_SYS_ADMIN"
    find_mirror
    find_git_mirrors
    mkdir -p "$BARE_DIR/archives" "$BARE_DIR/pip"
    COPIES=$(mktemp -d "$BARE_DIR/run.XXXXXX")
}

# The toolchain's own folder. One unpacked into the system's folders would bring the system's programs along.
find_toolchain() {
    local resources
    if [ -z "${BARE_SWIFT:-}" ]; then
        command -v swift >/dev/null || cannot "no 'swift' on PATH; BARE_SWIFT=FOLDER names a toolchain"
        resources=$(swift -print-target-info | sed -nE 's/.*"runtimeResourcePath" *: *"(.*)\/usr\/lib\/swift".*/\1/p')
        BARE_SWIFT=$resources
        [ -n "$BARE_SWIFT" ] ||
            cannot "swift is installed among the system's programs; unpack a toolchain elsewhere, and set BARE_SWIFT=FOLDER"
    fi
    [ -x "$BARE_SWIFT/usr/bin/swift" ] || cannot "there is no usr/bin/swift in BARE_SWIFT=$BARE_SWIFT"
    BINDS+=("$BARE_SWIFT" /swift)
}

# The package sources that BARE_MIRROR names, or else those that this machine uses for the release.
find_mirror() {
    local name
    SOURCES=$(apt-get indextargets --format "\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' |
        awk -v release=$RELEASE '($2 == release || $2 ~ "^" release "-(security|updates)$") && $3 == "main" { print "deb", $1, $2, $3 }' | sort -u)
    [ -z "${BARE_MIRROR:-}" ] || SOURCES="deb $BARE_MIRROR $RELEASE main"
    [ -n "$SOURCES" ] || cannot "apt here knows no mirror of $RELEASE; set BARE_MIRROR=URL to one"
    # How this machine reaches them: proxies, retries, checks of dates.
    APT_SETTINGS=$(apt-config dump --no-empty --format '%f "%v";%n' Acquire | grep -E '^Acquire::(https?|Retries|Check-)' || true)
    ENVIRONMENT=()
    for name in CI http_proxy https_proxy no_proxy PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT; do
        [ -z "${!name:-}" ] || ENVIRONMENT+=("$name=${!name}")
    done
}

# If git rewrites the addresses in Package.swift, it must do so inside as well.
find_git_mirrors() {
    local key address base folder folders=""
    GIT_SETTINGS=$(printf '[safe]\n\tdirectory = *\n')
    while read -r key address; do
        [ -n "$key" ] || continue
        base=${key#url.}
        base=${base%.insteadof}
        GIT_SETTINGS+=$(printf '\n[url "%s"]\n\tinsteadOf = %s\n' "$base" "$address")
        folder=${base#file://}
        case $folder in /*) [ ! -d "$folder" ] || folders+=" $folder" ;; esac
    done < <(git config --get-regexp '^url\..*\.insteadof$' || true)
    for folder in $(printf '%s\n' $folders ${BARE_BIND:-} | sort -u); do
        [ -d "$folder" ] || cannot "BARE_BIND names $folder, which is no folder"
        BINDS+=("$folder" "$folder")
    done
}

root_make() { # NAME LIST...
    local name=$1 root=$BARE_DIR/$1 packages="" list stamp
    shift
    for list in "$@"; do packages+=" $("$ROOT/deploy/install-packages.sh" --list "$list")"; done
    packages=$(echo "$packages" | tr -s ' \n' '\n' | sort -u | sed '/^$/d' | paste -s -d ,)
    stamp=$(echo "$packages"; echo "$SOURCES")
    if [ "$(cat "$root.made" 2>/dev/null)" = "$stamp" ]; then
        # shellcheck disable=SC2034 # what bare-check.sh adds to the step's line
        NOTE="kept from an earlier run"
        return 0
    fi
    rm -rf --one-file-system "$root" "$root.made"
    printf '%s\n' "$APT_SETTINGS" > "$COPIES/apt.conf"
    printf '%s\n' "$SOURCES" > "$COPIES/sources.list"
    # Also in its own namespaces, so that a kill leaves neither mounts nor processes; without a sync for each package.
    contained mmdebstrap --quiet --variant=minbase ${packages:+"--include=$packages"} --aptopt="$COPIES/apt.conf" \
        --dpkgopt=force-unsafe-io "$RELEASE" "$root" "$COPIES/sources.list" || return 1
    root_configure "$root" || return 1
    echo "$stamp" > "$root.made"
}

# What the root takes from this machine: DNS, package sources and certificate authorities.
root_configure() { # ROOT
    local file
    printf '%s\n' "$SOURCES" > "$1/etc/apt/sources.list"
    printf '%s\n' "$APT_SETTINGS" > "$1/etc/apt/apt.conf.d/90host"
    # Kept for the next run.
    echo 'Binary::apt-get::APT::Keep-Downloaded-Packages "true";' > "$1/etc/apt/apt.conf.d/91keep"
    printf '%s\n' "$GIT_SETTINGS" > "$1/etc/gitconfig"
    for file in /etc/pip.conf /root/.config/pip/pip.conf /root/.pip/pip.conf; do
        [ ! -f "$file" ] || install -D -m 0644 "$file" "$1$file"
    done
    if [ -n "$(ls -A /usr/local/share/ca-certificates 2>/dev/null)" ]; then
        cp -a /usr/local/share/ca-certificates "$1/usr/local/share/"
        [ ! -x "$1/usr/sbin/update-ca-certificates" ] || chroot "$1" update-ca-certificates >/dev/null 2>&1 || return 1
    fi
}

root_copy() { # NAME
    COPY=$COPIES/$1
    # Packages that an earlier run downloaded are linked, since apt locks their folder and runs may overlap.
    cp -a --reflink=auto "$BARE_DIR/$1" "$COPY" && mkdir -p "$COPY/project" &&
        cp -L /etc/resolv.conf /etc/hosts "$COPY/etc/" && cp -al "$BARE_DIR/archives/." "$COPY/var/cache/apt/archives/"
}

inside() { # COMMAND...
    contained bash -c "$(declare -f enter); enter \"\$@\"" enter "$COPY" "$BARE_DIR" "${#BINDS[@]}" "${BINDS[@]}" \
        "${#ENVIRONMENT[@]}" "${ENVIRONMENT[@]}" "$@"
}

# Runs a command in new namespaces, in the background, since bash acts on a signal only after a foreground program ends.
contained() { # COMMAND...
    local status=0
    unshare --mount --pid --fork --mount-proc --kill-child --propagation private "$@" </dev/null &
    CONTAINED=$!
    wait "$CONTAINED" || status=$?
    CONTAINED=""
    return "$status"
}

# The first process of the namespaces. Like init, it stays to wait for processes that others leave behind.
enter() { # ROOT BARE_DIR COUNT (FROM TO)... COUNT (NAME=VALUE)... COMMAND...
    local root=$1 cache=$2 count=$3 environment
    shift 3
    set -e
    mount --rbind /dev "$root/dev"
    mount --rbind -o ro /sys "$root/sys"
    mount -t proc proc "$root/proc"
    mkdir -p "$root/root/.cache/pip"
    mount --bind "$cache/pip" "$root/root/.cache/pip"
    while [ "$count" -gt 0 ]; do
        mkdir -p "$root$2"
        mount --rbind "$1" "$root$2"
        mount -o remount,bind,ro "$root$2"
        shift 2
        count=$((count - 2))
    done
    environment=("${@:2:$1}")
    shift $(($1 + 1))
    set +e
    # A background process ignores the interrupt key, and so would its children.
    chroot "$root" /usr/bin/env -i --default-signal=INT --default-signal=QUIT --chdir=/project HOME=/root LANG=C.UTF-8 \
        PATH=/swift/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${environment[@]}" "$@"
}

roots_end() {
    if [ -n "$CONTAINED" ]; then
        # All processes of the namespaces end with the first one.
        kill -KILL "$CONTAINED" 2>/dev/null || true
        wait "$CONTAINED" 2>/dev/null || true
    fi
    [ -n "$COPIES" ] || return 0
    find "$COPIES"/*/var/cache/apt/archives -maxdepth 1 -name '*.deb' -exec cp -al --no-clobber -t "$BARE_DIR/archives" {} + \
        2>/dev/null || true
    rm -rf --one-file-system "$COPIES"
}
