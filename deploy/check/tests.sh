#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the test suite, which has been built, and says at its end which tests failed and why: in a log of thousands of lines
# they are hard to find.
#
# Up to three tests that fail run once more, alone. If they pass then, they are named, and the run passes: such a test does not
# hold on a busy machine, and must be fixed. Set SWITCHYARD_TEST_RERUN=0 to let it fail.
#
#   deploy/check/tests.sh [--filter TEXT ...]     further arguments are those of `swift test`

set -eu

cd "$(dirname "$0")/../.."
swift=${SWIFT:-swift}
out=.build/tests
mkdir -p "$out"

# run NAME [ARGUMENTS]: one run, whose log and results are kept under that name
run() {
    name=$1
    shift
    rm -f "$out/$name-swift-testing.xml" "$out/$name.failed"
    { $swift test --skip-build --no-parallel --xunit-output "$out/$name.xml" "$@" || touch "$out/$name.failed"; } 2>&1 |
        tee "$out/$name.log"
    [ ! -e "$out/$name.failed" ]
}

# failures NAME: SUITE/FUNCTION and the message of each failed test
failures() {
    [ -e "$out/$1-swift-testing.xml" ] || return 0
    awk '
        /<testcase / {
            suite = $0; sub(/.*classname="/, "", suite); sub(/".*/, "", suite)
            name = $0; sub(/.* name="/, "", name); sub(/".*/, "", name)
        }
        /<failure/ {
            message = $0; sub(/.*message="/, "", message); sub(/"[^"]*$/, "", message)
            gsub(/&quot;/, "\"", message); gsub(/&lt;/, "<", message); gsub(/&gt;/, ">", message)
            gsub(/&apos;/, "\047", message); gsub(/&#8594;/, "is", message); gsub(/&amp;/, "\\&", message)
            print suite "/" name "\t" substr(message, 1, 400)
        }' "$out/$1-swift-testing.xml"
}

run all "$@" && exit 0

list=$(failures all)
if [ -z "$list" ]; then
    echo "The run ended without results: a test may have crashed. The last lines of $out/all.log:"
    grep -aE '✘|rash|ignal|Fatal' "$out/all.log" | tail -5
    tail -5 "$out/all.log"
    exit 1
fi
echo
echo "Failed tests:"
echo "$list"
count=$(echo "$list" | cut -f1 | sort -u | wc -l)
if [ "$count" -gt 3 ] || [ "${SWITCHYARD_TEST_RERUN:-1}" = 0 ]; then exit 1; fi

echo
echo "Running $count once more, alone."
set --
for test in $(echo "$list" | cut -f1 | sort -u | sed 's/[(].*//; s/[.]/[.]/g'); do
    set -- "$@" --filter "^$test[(]"
done
run again "$@" >/dev/null || {
    echo "They fail alone, too:"
    failures again
    exit 1
}
# A filter that matches nothing passes as well.
grep -qaE "Test run with [1-9]" "$out/again.log" || {
    echo "They were not found again; see $out/again.log"
    exit 1
}
echo "They passed alone. A test must hold on a busy machine: fix them."
