#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compares the variables of the compose files with those that compose/.env.example explains.
set -eu
cd "$(dirname "$0")/../../compose"
asked=$(cat ./*.yaml | grep -v '^ *#' | grep -ohE '\$\{[A-Z0-9_]+' | tr -d '${' | sort -u)
explained=$(sed -nE 's/^([A-Z0-9_]+)=.*/\1/p' .env.example | sort -u)
status=0
for name in $asked; do
    printf '%s\n' "$explained" | grep -qx "$name" || { echo "$name is asked for and not explained"; status=1; }
done
for name in $explained; do
    printf '%s\n' "$asked" | grep -qx "$name" || { echo "$name is explained, and no file asks for it"; status=1; }
done
exit $status
