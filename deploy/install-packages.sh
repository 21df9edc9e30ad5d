#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that Switchyard needs, where they are missing.
#
#   deploy/install-packages.sh LIST            for example: deploy/install-packages.sh build
#   deploy/install-packages.sh --list LIST     prints the list's packages
#   deploy/install-packages.sh --check LIST    checks that what they bring is found
#   deploy/install-packages.sh --table         prints all lists
#
#   build      what a build needs
#   test       what the test suite needs: the list `build`, and other people's gRPC
#   faults     what the fault suite needs: the list `build`, and networks of its own for expert hosts
#   sanitize   what `make sanitize` needs
#   python     what `make wheel` needs
#   package    what `make package` needs: the list `build`, and Debian's packaging tools
#   bare       what `make bare-check` needs on the machine that runs it
#   deploy     what `make deploy-check` and `make deploy-test` need besides a container engine
#   ready      what README.md expects on the machine: make, git and certificates
#   swift      what Swift's own installation page asks for on Debian 12
set -eu

# One line per package: the list, the package, and what it is here for: a program, a <header>, a pkg-config module or a /file.
# A test compares this table with what the Makefile, scripts, tests and Package.swift use (deploy/check/commands.py).
table() {
    cat <<'TABLE'
ready     make                     make
ready     git                      git
ready     ca-certificates          /etc/ssl/certs/ca-certificates.crt

swift     binutils-gold            ld.gold
swift     gcc                      gcc
swift     git                      git
swift     libcurl4-openssl-dev
swift     libedit-dev
swift     libicu-dev
swift     libncurses-dev
swift     libpython3-dev
swift     libsqlite3-dev
swift     libxml2-dev
swift     pkg-config
swift     tzdata
swift     uuid-dev

build     pkg-config               pkg-config
build     libc6-dev                <stdint.h>
build     libstdc++-12-dev         <memory>
build     libnghttp2-dev           libnghttp2.pc <nghttp2/nghttp2.h>
build     libprotobuf-c-dev        libprotobuf-c.pc <protobuf-c/protobuf-c.h>
build     libopenblas-dev          openblas.pc <cblas.h>
build     libsentencepiece-dev     <sentencepiece_processor.h>
build     zlib1g-dev               zlib.pc <zlib.h>
build     libssl-dev               libcrypto.pc <openssl/evp.h>
build     libcurl4-openssl-dev     libcurl.pc <curl/curl.h>

test      openssl                  openssl
test      python3                  python3
test      python3-venv
test      curl                     curl
test      nghttp2-proxy            nghttpx
test      nghttp2-client           h2load
test      chromium                 chromium
test      g++                      g++
test      libgrpc++-dev            grpc++.pc <grpcpp/grpcpp.h>
test      protobuf-compiler        protoc
test      libprotobuf-dev          protobuf.pc <google/protobuf/port_def.inc>
test      protobuf-compiler-grpc   grpc_cpp_plugin
test      protobuf-c-compiler      protoc-c
test      valgrind                 valgrind
test      python3-protobuf         /usr/lib/python3/dist-packages/google/protobuf

python    python3                  python3
python    python3-venv

faults    iproute2                 ip
faults    nftables                 nft
faults    iptables                 iptables
faults    util-linux               unshare nsenter
faults    mount                    mount

package   binutils                 strip
package   dpkg-dev                 dpkg-shlibdeps
package   patchelf                 patchelf
package   xz-utils                 xz

bare      mmdebstrap               mmdebstrap
bare      debian-archive-keyring   /usr/share/keyrings/debian-archive-keyring.gpg

deploy    python3                  python3
deploy    curl                     curl
deploy    iproute2                 ip
deploy    iptables                 iptables
deploy    util-linux               nsenter unshare
deploy    runc                     runc
deploy    systemd                  systemd-analyze
deploy    prometheus               promtool prometheus
deploy    podman                   podman
deploy    netavark                 /usr/lib/podman/netavark
deploy    aardvark-dns             /usr/lib/podman/aardvark-dns
deploy    catatonit                catatonit
TABLE
}

# The lists that a list includes.
lists_of() {
    case "$1" in
    build | swift | ready | bare | deploy | python) echo "$1" ;;
    test | faults | package) echo "build $1" ;;
    sanitize) echo "build" ;;
    *) usage ;;
    esac
}

packages_of() { # LIST
    for list in $(lists_of "$1"); do
        table | awk -v list="$list" '$1 == list { print $2 }'
    done
}

found() { # WHAT
    case "$1" in
    /*) [ -e "$1" ] ;;
    "<"*) [ -n "$(find /usr/include -path "/usr/include/*$(echo "$1" | tr -d '<>')" -print -quit)" ] ;;
    *.pc) pkg-config --exists "${1%.pc}" ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

check() { # LIST
    status=0
    for list in $(lists_of "$1"); do
        for line in $(table | awk -v list="$list" '$1 == list { for (i = 3; i <= NF; i++) print $2 "=" $i }'); do
            found "${line#*=}" && continue
            echo "error: ${line#*=} is not found; the Debian package ${line%%=*} should bring it" >&2
            status=1
        done
    done
    return $status
}

install() { # LIST
    wanted=$(packages_of "$1")
    if ! command -v dpkg-query >/dev/null 2>&1; then
        # shellcheck disable=SC2086 # on one line
        echo "note: this is not Debian; make sure that the equivalents of these packages are installed:" $wanted >&2
        return 0
    fi
    missing=""
    for package in $wanted; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "error: these Debian packages are missing:$missing" >&2
        echo "Install them and run again:  sudo apt-get update && sudo apt-get install --yes$missing" >&2
        return 1
    fi
    echo "Installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # the list is meant to be split
    apt-get install --yes -q --no-install-recommends $missing
}

usage() {
    sed -n '3,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

case "${1:-}" in
--table) table ;;
--list | --check)
    lists_of "${2:-}" >/dev/null
    if [ "$1" = --list ]; then packages_of "$2" | sort -u; else check "$2"; fi
    ;;
"" | -*) usage ;;
*)
    lists_of "$1" >/dev/null
    case "$1" in
    build | test | faults | sanitize)
        command -v swift >/dev/null 2>&1 || {
            echo "error: no 'swift' on PATH. Install Swift 6.2 or later (https://www.swift.org/install/linux/) and run again." >&2
            exit 1
        }
        ;;
    esac
    install "$1"
    ;;
esac
