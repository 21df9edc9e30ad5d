#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2317 # steps are called by name
#
# Checks that Switchyard builds and passes its tests on a bare machine: a Debian 12 root with what Swift's installation page
# asks for, make, git and certificates, and the Swift toolchain bind-mounted read-only. Nothing else of this machine is visible.
#
#   deploy/bare-check.sh             `make demo`, `make test` and `make package` as README.md has them, from a clean clone of
#                                    the last commit; then the package is installed where there is no toolchain (an hour)
#   deploy/bare-check.sh --quick     the installation steps, C and C++ files, a small Swift program, the C++ peers, and every
#                                    program, header and module that the package lists promise (three minutes)
#   deploy/bare-check.sh --package FILE.deb     only installs a package, and runs the miniature model with it and with
#                                    the tarball beside it (a minute)
#   deploy/bare-check.sh --run COMMAND...       a command in such a root, for example: deploy/bare-check.sh --run make test
#   deploy/bare-check.sh --clean                removes the roots that are kept for the next run
#
# It needs root and Debian, where it installs mmdebstrap if missing. Exit status: 0 all passed, 1 something failed, 3 it cannot
# run here. Settings:
#   BARE_DIR=FOLDER     where roots and downloaded packages are kept (.build/bare)
#   BARE_SWIFT=FOLDER   a toolchain's folder, with usr/bin/swift below it (the one on PATH)
#   BARE_MIRROR=URL     a mirror of Debian (those that this machine's apt uses)
#   BARE_BIND="FOLDER..."   more folders to bind read-only, for example a local mirror of packages; local folders that git's
#                           url.<base>.insteadOf names are bound without being asked for
set -uo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PROMPT='A horse! a horse! my <extra_id_0> for a horse!'
ANSWER='<extra_id_0> kingdom<extra_id_1></s>'
. "$ROOT/deploy/bare/root.sh"

passed=0 failed=0 NOTE=""

usage() { sed -n '4,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }

# Runs a step and prints its outcome and time. `show` passes its output through; `hide` prints the end of it on failure.
step() { # show|hide WHAT COMMAND...
    local mode=$1 what=$2 began=$SECONDS log=$COPIES/log status=0
    shift 2
    NOTE=""
    echo "running  $what" >&2
    if [ "$mode" = show ]; then "$@" || status=$?; else "$@" >"$log" 2>&1 || status=$?; fi
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'passed   %4d s  %s%s\n' $((SECONDS - began)) "$what" "${NOTE:+ ($NOTE)}"
    else
        failed=$((failed + 1))
        printf 'FAILED   %4d s  %s (status %d)\n' $((SECONDS - began)) "$what" "$status"
        [ "$mode" = show ] || tail -n 40 "$log" | sed 's/^/    /'
    fi
    return "$status"
}

bare_root() {
    root_make bare swift ready && root_copy bare
}

clone() {
    git -C "$ROOT" rev-parse --quiet --verify HEAD >/dev/null || { echo "$ROOT is not a git checkout"; return 1; }
    rm -rf "$COPY/project"
    git clone --quiet --no-hardlinks "$ROOT" "$COPY/project" || return 1
    chown -R root:root "$COPY/project"
    NOTE=$(git -C "$ROOT" log -1 --format='%h %s')
    [ -z "$(git -C "$ROOT" status --porcelain)" ] || NOTE+="; uncommitted changes are not included"
}

# A program with what the system modules of Package.swift declare, and all C and C++ files, by the toolchain's own clang.
modules() {
    # shellcheck disable=SC2016 # expanded inside
    inside bash -euc '
        names=$(sed -nE "s/.*pkgConfig: \"([^\"]+)\".*/\1/p" Package.swift)
        for header in Sources/C*/shim.h; do echo "#include \"$PWD/$header\""; done > /tmp/modules.c
        echo "int main(void) { return 0; }" >> /tmp/modules.c
        clang -Wl,--no-as-needed $(pkg-config --cflags $names) /tmp/modules.c -o /tmp/modules $(pkg-config --libs $names)
        /tmp/modules
        includes=$(printf -- "-I%s " Sources/C*/include)
        clang -fsyntax-only -Wno-pragma-once-outside-header $includes $(find Sources Tests -name "*.c")
        clang++ -std=c++17 -fsyntax-only $includes $(find Sources -name "*.cpp")'
}

# What `make demo` needs of the toolchain: compiling and running a manifest, and a program with Swift's libraries linked in.
program() {
    # shellcheck disable=SC2016 # expanded inside
    inside bash -euc '
        swift package dump-package > /dev/null
        echo "import Foundation; print(URL(fileURLWithPath: \"/tmp/swift\").lastPathComponent)" > /tmp/program.swift
        swiftc -static-stdlib /tmp/program.swift -o /tmp/program
        [ "$(/tmp/program)" = swift ]'
}

peers() {
    inside make .venv/.ready &&
        inside .venv/bin/python -c 'import grpc, grpc_tools, grpc_health, grpc_reflection, grpclib, h2, pytest, mypy, nbclient'
}

regenerated() { inside make protos && inside git diff --exit-code --stat; }

lists() { # LIST...
    local list
    for list in "$@"; do
        inside deploy/install-packages.sh "$list" && inside deploy/install-packages.sh --check "$list" || return 1
    done
}

start() {
    find_toolchain
    step hide "a bare Debian 12 root" bare_root && step hide "a clean clone of the last commit" clone &&
        step hide "the toolchain runs in it" inside swift --version
}

quick() {
    start || return 1
    step hide "what a build needs is installed and found" lists build || return 1
    step hide "system modules, C and C++ files compile" modules
    step hide "a Swift program builds, with Swift's libraries linked in" program
    step hide "what the tests need is installed and found" lists test || return 1
    step hide "Python has other people's gRPC, and what the package's tests need" peers
    step hide "the C++ peers build" inside env CI=true make peers-cpp
    step hide "the protos' code is what the generators give" regenerated
    step hide "commands, headers and modules are in the package lists" inside python3 deploy/check/commands.py
    step hide "what faults, sanitizers, packages and the wheel need is installed and found" lists faults sanitize package python
}

full() {
    local package
    start || return 1
    step show "make demo" inside make demo
    step show "make test" inside make test
    step show "make package" inside make package || return 1
    package=$(find "$COPY/project/.build/package" -name '*.deb')
    check_package "$package"
}

# --- The package, on a machine without a toolchain --------------------------------------------------------------------

minimal_root() {
    BINDS=()
    root_make minimal && root_copy minimal && cp -r "$ROOT/deploy/models/switch-mini" "$COPY/project/model"
}

install_package() { # FILE
    cp "$1" "$COPY/project/switchyard.deb"
    inside apt-get update -q && inside apt-get install --yes -q --no-install-recommends ./switchyard.deb || return 1
    inside switchyard --version || return 1
    # shellcheck disable=SC2016 # dpkg's own format
    NOTE="$(du -h "$1" | cut -f 1) and $(inside dpkg-query -W -f '${Installed-Size}' switchyard) kB installed"
}

# A cluster as a person would start it: a shard per host, `up`, a request, and SIGTERM.
miniature() {
    # shellcheck disable=SC2016 # expanded inside
    inside env PROMPT="$PROMPT" ANSWER="$ANSWER" bash -uc '
        switchyard shard model --out /tmp/shards --pools 2 || exit
        switchyard up model --shards /tmp/shards &
        for _ in $(seq 100); do switchyard health >/dev/null 2>&1 && break; sleep 0.2; done
        answer=$(switchyard generate --strict "$PROMPT"); switchyard status
        kill -TERM %1; wait %1; echo "up ended with status $?"
        echo "$answer"; [ "$answer" = "$ANSWER" ]'
}

demo() { inside switchyard demo --model model; }

# Before the package is installed, so that none of its dependencies' libraries are present.
tarball() { # FILE
    mkdir "$COPY/project/tarball"
    tar --extract --file "$1" --directory "$COPY/project/tarball" --strip-components=1 &&
        inside tarball/bin/switchyard demo --model model
}

# Debian's rule: removing a package keeps its settings, purging it deletes them.
removal() {
    inside getent passwd switchyard && inside test -f /etc/switchyard/gateway.env || return 1
    inside apt-get remove --yes -q switchyard && inside test -f /etc/switchyard/gateway.env || return 1
    inside dpkg --purge switchyard && ! inside test -e /etc/switchyard
}

check_package() { # FILE
    local began bundle
    [ -f "$1" ] || { echo "error: no package $1; 'make package' builds it" >&2; return 1; }
    step hide "a minimal Debian 12 root, without a toolchain" minimal_root || return 1
    for bundle in "$(dirname "$1")"/switchyard-*.tar.xz; do
        [ ! -f "$bundle" ] || step hide "the tarball's program runs there: switchyard demo" tarball "$bundle"
    done
    began=$SECONDS
    step hide "the package is installed there" install_package "$1" || return 1
    step hide "shard, up, generate and status on the miniature model" miniature
    step hide "switchyard demo" demo
    echo "         $((SECONDS - began)) s from the package to the end of the demo"
    step hide "removal keeps the settings, and a purge removes them" removal
}

# --- Arguments --------------------------------------------------------------------------------------------------------

# A function, and one line at the end, so that the whole file is read before anything runs.
main() {
    local mode=${1:---full}
    case $mode in
    --full | --quick) [ $# -le 1 ] || { usage >&2; exit 2; } ;;
    --package) [ $# -eq 2 ] || { usage >&2; exit 2; } ;;
    --run) [ $# -ge 2 ] || { usage >&2; exit 2; } ;;
    --clean) rm -rf --one-file-system "$BARE_DIR" && exit ;;
    --help | -h) usage && exit ;;
    *) usage >&2; exit 2 ;;
    esac

    trap roots_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    roots_prepare
    case $mode in
    --full) full ;;
    --quick) quick ;;
    --package) check_package "$2" ;;
    --run) start && shift && step show "$*" inside "$@" ;;
    esac
    echo "$passed passed, $failed failed, $SECONDS s"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

{ main "$@"; exit; }
