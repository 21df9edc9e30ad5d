#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the tests with a sanitizer and runs them under it.
#
#   Tests/Sanitizers/run.sh thread|address [FILTER]
#
# FILTER is what `swift test --filter` takes; without it, the suites below run. What a sanitizer reports fails the run.
set -euo pipefail
cd "$(dirname "$0")/../.."

sanitizer="${1:-}"
# Everything but the tests that start other programs or compute for long: a sanitizer slows those down tenfold.
filter="${2:-^(RPCCore|SwitchyardProtos|HTTP2Session|RPCTransport|BatchScheduling|ExpertPooling|ServiceKit|SwitchyardClient|Fuzz)Tests\.}"
swift="${SWIFT:-swift}"
started=$(date +%s)

case "$sanitizer" in
thread)
    scratch=.build-tsan
    export TSAN_OPTIONS="halt_on_error=0 exitcode=66 history_size=4 ${TSAN_OPTIONS:-}"
    ;;
address)
    scratch=.build-asan
    export ASAN_OPTIONS="detect_leaks=1 detect_stack_use_after_return=0 ${ASAN_OPTIONS:-}"
    export LSAN_OPTIONS="suppressions=$PWD/Tests/Sanitizers/leak.supp print_suppressions=0 ${LSAN_OPTIONS:-}"
    ;;
*)
    echo "usage: $0 thread|address [FILTER]" >&2
    exit 2
    ;;
esac

"$swift" build --build-tests --sanitize="$sanitizer" --scratch-path "$scratch"
built=$(date +%s)
if [ "$sanitizer" = thread ]; then
    # The toolchain's own clang, which knows Swift's calling convention.
    clang="$(dirname "$(readlink -f "$(command -v "$swift")")")/clang"
    "$clang" -O1 -Wall -Wextra -Werror -fPIC -shared -o "$scratch/libmutexevents.so" Tests/Sanitizers/mutex_events.c -ldl
    export LD_PRELOAD="$PWD/$scratch/libmutexevents.so"
fi

log="$scratch/sanitizer.log"
status=0
"$swift" test --skip-build --sanitize="$sanitizer" --scratch-path "$scratch" --no-parallel --filter "$filter" \
    >"$log" 2>&1 || status=$?
unset LD_PRELOAD
reports=$(grep -cE '^(WARNING|==[0-9]+==ERROR): (Thread|Address|Leak)Sanitizer' "$log" || true)
summary=$(grep -E 'Test run with' "$log" | tail -1 || true)
if [ "$status" -ne 0 ] || [ "$reports" -ne 0 ]; then
    grep -E 'SUMMARY: |✘|error:' "$log" | sort | uniq -c | sort -rn | head -40 >&2 || true
    echo "$sanitizer sanitizer: FAILED, $reports reports, exit status $status; see $log" >&2
    exit 1
fi
echo "$sanitizer sanitizer: clean. ${summary#* } (build $((built - started)) s, tests $(($(date +%s) - built)) s)"
