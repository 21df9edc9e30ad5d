#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compares the metrics that alerts, recording rules, autoscalers and the dashboard use with those that the software defines, and
# the runbooks that alerts link to with the headings of docs/deployment.md.
set -eu
cd "$(dirname "$0")/../.."

# Names of recording rules have colons; their parts are not metrics.
used=$(cat deploy/prometheus/rules/*.yaml deploy/grafana/dashboards/*.json |
    sed -E 's/[a-z]+:switchyard_[a-z_]+:[a-z0-9_]+//g' |
    grep -ohE '\b(switchyard|process)_[a-z_]+' | sed -E 's/_(bucket|sum|count)$//' | sort -u)
known=$(grep -ohE '"(switchyard|process)_[a-z_]+"' Sources/Telemetry/Catalog/*.swift | tr -d '"' | sort -u)
status=0
for name in $used; do
    if ! printf '%s\n' "$known" | grep -qx "$name"; then
        echo "$name is used in deploy/, but Sources/Telemetry/Catalog defines no such metric"
        status=1
    fi
done

recorded=$(sed -nE 's/^ *- record: (.*)/\1/p' deploy/prometheus/rules/*.yaml)
for name in $(cat deploy/prometheus/rules/alerts.yaml deploy/grafana/dashboards/*.json deploy/kubernetes/monitoring/adapter.yaml |
    grep -ohE '[a-z]+:switchyard_[a-z_]+:[a-z0-9_]+' | sort -u); do
    if ! printf '%s\n' "$recorded" | grep -qx "$name"; then
        echo "$name is used in deploy/, but no rule records it"
        status=1
    fi
done

anchors=$(sed -nE 's/^#+ (.*)/\1/p' docs/deployment.md | tr 'A-Z ' 'a-z-' | tr -d "',.:\`")
for anchor in $(sed -nE 's/.*runbook: docs\/deployment.md#([a-z-]+).*/\1/p' deploy/prometheus/rules/alerts.yaml | sort -u); do
    if ! printf '%s\n' "$anchors" | grep -qx "$anchor"; then
        echo "an alert links to docs/deployment.md#$anchor, which has no such heading"
        status=1
    fi
done
exit $status
