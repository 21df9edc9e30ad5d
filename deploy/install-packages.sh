#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that Switchyard needs, where they are missing.
#
#   deploy/install-packages.sh build    what a build needs
#   deploy/install-packages.sh test     what the test suite needs as well
#   deploy/install-packages.sh faults   what a build and the fault suite need: networks of their own for expert hosts
set -eu

build_packages="libnghttp2-dev libprotobuf-c-dev libopenblas-dev libsentencepiece-dev zlib1g-dev pkg-config"
test_packages="openssl python3 python3-venv protobuf-compiler protobuf-c-compiler curl nghttp2-proxy g++ libgrpc++-dev
    protobuf-compiler-grpc python3-protobuf"
faults_packages="iproute2 nftables iptables util-linux"

case "${1:-}" in
build) wanted=$build_packages ;;
test) wanted="$build_packages $test_packages" ;;
faults) wanted="$build_packages $faults_packages" ;;
*)
    echo "usage: $0 build|test|faults" >&2
    exit 2
    ;;
esac

if ! command -v swift >/dev/null 2>&1; then
    echo "error: no 'swift' on PATH. Install Swift 6.2 or later (https://www.swift.org/install/linux/) and run again." >&2
    exit 1
fi
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "note: this is no Debian system; make sure that these packages' equivalents are installed: $wanted" >&2
    exit 0
fi

missing=""
for package in $wanted; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "error: these Debian packages are missing:$missing" >&2
    echo "Install them and run again:  sudo apt-get update && sudo apt-get install --yes$missing" >&2
    exit 1
fi
echo "Installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install --yes -q --no-install-recommends $missing
