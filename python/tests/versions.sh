#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests of the Python package with several versions of Python, on its wheel in an environment of its own each. Python
# 3.9, or else 3.10, runs them once more, with the oldest libraries that the package allows.
#
#   python/tests/versions.sh WHEELS PYTHON...     a folder with the wheel, and interpreters: names on PATH, or paths
#
# SWITCHYARD_BINARY names the program. Interpreters that are not there are named and left out. The notebook's pictures and mypy's
# findings depend on their own versions, which not every Python has packages of, so those tests run with the pinned ones only.

set -eu

wheels=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
status=0
first=yes

run() { # NAME PYTHON PACKAGE...
    name=$1 python=$2
    shift 2
    "$python" -m venv "$work/$name"
    "$work/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$wheels"/switchyard-*.whl pytest "$@"
    "$work/$name/bin/python" -m pip list --disable-pip-version-check --format freeze |
        grep -E '^(grpcio|protobuf|numpy)=' | tr '\n' ' '
    # Without pythonpath, the tests import the package that is installed.
    (cd "$root/python" && "$work/$name/bin/python" -m pytest -q -p no:cacheprovider -o pythonpath= tests \
        --ignore tests/test_package.py 2>&1 | tail -n 15) || true
}

for python in "$@"; do
    if ! "$python" -c 'import venv' 2>/dev/null; then
        echo "$python: not found"
        continue
    fi
    version=$("$python" --version 2>&1)
    for libraries in newest lowest; do
        if [ "$libraries" = lowest ]; then
            # There are packages of these for both.
            case $version in "Python 3.9."* | "Python 3.10."*) [ "$first" = yes ] || continue ;; *) continue ;; esac
            first=no
        fi
        set -- ""
        [ "$libraries" = newest ] || set -- "grpcio==1.62.0" "protobuf==4.25.1" "numpy==1.22.0"
        echo "$version, $libraries libraries"
        # shellcheck disable=SC2068 # an empty argument is none
        run "$libraries-$(echo "$version" | tr -c '0-9.\n' _)" "$python" $@ >"$work/log" 2>&1 || status=1
        cat "$work/log"
        grep -qE '^[0-9]+ passed in' "$work/log" || status=1
    done
done
exit $status
