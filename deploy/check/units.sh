#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lets systemd verify the units, in a copy whose program exists, and limits their exposure: `systemd-analyze security` rates a
# unit that may do everything 10.
set -eu
cd "$(dirname "$0")/../systemd"
# Every file that the settings name is made by a step of the guide.
for file in $(grep -ho '/etc/switchyard/[a-z0-9.-]*' -- *.env | sed 's|.*/||; s|[.]pem$||' | grep -v '[.]env$' | sort -u); do
    grep -qE "^# .*[{,/]$file([,}. ;]|\$)" ../../docs/deployment.md || {
        echo "docs/deployment.md has no step that makes /etc/switchyard/$file" >&2
        exit 1
    }
done
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for unit in *.service; do sed 's|/usr/bin/switchyard|/bin/true|' "$unit" > "$copy/$unit"; done
systemd-analyze verify "$copy"/*.service
for unit in "$copy"/*.service; do
    systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" > "$copy/report" || {
        tail -n 3 "$copy/report"
        exit 1
    }
    tail -n 1 "$copy/report"
done
