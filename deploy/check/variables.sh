#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compares the variables of the compose files with those that compose/.env.example explains, and the settings in the deploy
# files with those of docs/operations.md.
set -eu
cd "$(dirname "$0")/../../compose"
asked=$(cat ./*.yaml | grep -v '^ *#' | grep -ohE '\$\{[A-Z0-9_]+' | tr -d '${' | sort -u)
explained=$(sed -nE 's/^([A-Z0-9_]+)=.*/\1/p' .env.example | sort -u)
status=0
for name in $asked; do
    printf '%s\n' "$explained" | grep -qx "$name" || { echo "a compose file uses $name, but .env.example does not explain it"; status=1; }
done
for name in $explained; do
    printf '%s\n' "$asked" | grep -qx "$name" || { echo ".env.example explains $name, but no compose file uses it"; status=1; }
done

cd ..
# SWITCHYARD_MAX_ROWS is listed there as `max-rows`.
settings=$(grep -ohE '`[a-z][a-z-]+`' docs/operations.md | tr -d '`' | tr 'a-z-' 'A-Z_' | sort -u)
given=$(
    grep -hoE '^ *SWITCHYARD_[A-Z_]+:' compose/*.yaml
    grep -rhoE 'name: SWITCHYARD_[A-Z_]+' deploy/kubernetes
    grep -hoE '^SWITCHYARD_[A-Z_]+' deploy/systemd/*.env
)
for name in $(printf '%s\n' "$given" | grep -oE 'SWITCHYARD_[A-Z_]+' | sort -u); do
    printf '%s\n' "$settings" | grep -qx "${name#SWITCHYARD_}" ||
        case $name in
        SWITCHYARD_TOKEN | SWITCHYARD_ENDPOINT) ;;
        *) echo "a deploy file sets $name, but docs/operations.md has no such setting"; status=1 ;;
        esac
done
exit $status
