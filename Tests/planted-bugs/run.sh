#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the pure machines and the simulator with optimisation and with every planted bug behind a number.
#
#   run.sh             run seeds for each bug until a rule breaks, and print a table as Markdown; SECONDS_EACH bounds the
#                      time for one bug, JOBS is how many run at once
#   run.sh seeds N     run N seeds without a bug; fails if one breaks a rule, or if a rare state was never reached
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${OUT:-$root/.build/planted-bugs}
swift=${SWIFT:-swift}
jobs=${JOBS:-2}
seconds=${SECONDS_EACH:-60}

python3 "$here/plant.py" "$out"
[ -d "$root/.build/checkouts/swift-nio" ] || "$swift" package --package-path "$root" resolve
# swift-nio then takes its own dependencies from the folders beside it.
export SWIFTCI_USE_LOCAL_DEPS=1
"$swift" build --package-path "$out" -c release --product planted >&2
program=$("$swift" build --package-path "$out" -c release --show-bin-path)/planted

if [ "${1:-}" = seeds ]; then
    exec "$program" 0 1 "${2:?how many seeds}" 86400
fi

python3 "$here/plant.py" --list >"$out/list"
begun=$(date +%s)
export SWIFT_BACKTRACE=enable=no
# A shell around each, since xargs gives up when a program is ended by a signal.
cut -f 1 "$out/list" | xargs -P "$jobs" -I{} sh -c '"$1" "$2" 1 1000000 "$3" || true' sh "$program" {} "$seconds" \
    >"$out/found" 2>"$out/errors"
taken=$(($(date +%s) - begun))

echo '| Machine | Bug | Seeds | Broken rule |'
echo '|---|---|---:|---|'
found=0
while IFS=$'\t' read -r number machine what; do
    # A bug that stops the program is found too: its line is missing.
    line=$(grep -P "^$number\t" "$out/found" || printf '%s\tfound\t\tthe program stopped' "$number")
    state=$(cut -f 2 <<<"$line")
    seeds=$(cut -f 3 <<<"$line")
    rule=$(cut -f 4 <<<"$line")
    if [ "$state" = found ]; then
        found=$((found + 1))
    else
        seeds=
        rule='**not found**'
    fi
    echo "| \`$machine\` | $what | $seeds | ${rule//|/\\|} |"
done <"$out/list"
echo
echo "$found of $(wc -l <"$out/list") found in $taken s, $jobs at a time"
