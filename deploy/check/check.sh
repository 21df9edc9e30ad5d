#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks every deploy file with its own project's tools, without bringing anything up. If a tool is missing, its check is
# reported as skipped; with CI set that is a failure.
#
#   deploy/check/check.sh
#
# kubectl or kustomize build the overlays; kubernetes-validate (PyPI, kept in .build/deploy-check) validates them against the
# schemas of two Kubernetes versions; docker compose resolves the compose files (no engine is needed); promtool checks and
# unit-tests the rules; systemd-analyze verifies the units.
set -uo pipefail

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
cd "$ROOT" || exit 2
OUT=$ROOT/.build/deploy-check
KUBERNETES_VERSIONS=(1.31 1.36)
mkdir -p "$OUT"
passed=0 failed=0 skipped=0

check() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@" >"$OUT/log" 2>&1; then
        echo "passed   $what"
        passed=$((passed + 1))
    else
        echo "FAILED   $what"
        sed 's/^/    /' "$OUT/log" | head -n 30
        failed=$((failed + 1))
    fi
}

skip() { # WHAT WHY
    echo "skipped  $1: $2"
    skipped=$((skipped + 1))
}

has() { command -v "$1" >/dev/null 2>&1; }

# --- Kubernetes -------------------------------------------------------------------------------------------------------

build_overlay() {
    if has kubectl; then kubectl kustomize "$1"; else kustomize build "$1"; fi
}

python() {
    if [ ! -x "$OUT/venv/bin/kubernetes-validate" ]; then
        python3 -m venv "$OUT/venv" && "$OUT/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate
    fi >/dev/null 2>&1
    [ -x "$OUT/venv/bin/kubernetes-validate" ]
}

if has kubectl || has kustomize; then
    for overlay in demo production training training-hosts podman; do
        check "deploy/kubernetes/overlays/$overlay is built by kustomize" \
            sh -c "$(declare -f build_overlay has); build_overlay deploy/kubernetes/overlays/$overlay > $OUT/$overlay.yaml"
        if ! python; then
            skip "$overlay against Kubernetes' schemas" "kubernetes-validate cannot be installed here"
            continue
        fi
        for version in "${KUBERNETES_VERSIONS[@]}"; do
            check "$overlay is valid for Kubernetes $version, strictly" \
                "$OUT/venv/bin/kubernetes-validate" --strict --quiet --kubernetes-version "$version" "$OUT/$overlay.yaml"
        done
        # What podman does not have, such as Services and probes, its overlay leaves out; the deploy test plays it.
        [ "$overlay" != podman ] || continue
        check "$overlay holds together: references, probes, time to drain" \
            "$OUT/venv/bin/python" deploy/check/manifests.py "$OUT/$overlay.yaml"
    done
else
    skip "deploy/kubernetes" "neither kubectl nor kustomize is here"
fi

# --- Compose ----------------------------------------------------------------------------------------------------------

# If compose is missing, use the one that the deploy test unpacks: it needs no engine for this.
ENGINE=$ROOT/.build/deploy-test/engine
if ! docker compose version >/dev/null 2>&1 && [ -x "$ENGINE/usr/bin/docker" ]; then
    export PATH=$ENGINE/usr/bin:$PATH DOCKER_CONFIG=$ENGINE/config
fi
if docker compose version >/dev/null 2>&1; then
    export SWITCHYARD_POOL=pool-0=a:7501
    for files in demo gateway experts demo+tls demo+monitoring demo+tls+monitoring demo+training demo+rollout training-hosts; do
        arguments=()
        for file in ${files//+/ }; do arguments+=(--file "compose/$file.yaml"); done
        check "compose: $files" docker compose "${arguments[@]}" --profile client --profile setup config --quiet
    done
    for files in stack stack+stack-demo; do
        arguments=()
        for file in ${files//+/ }; do arguments+=(--compose-file "compose/$file.yaml"); done
        # Certificates need not be there: nothing is sent.
        check "stack: $files" docker stack config "${arguments[@]}"
    done
    check "compose: .env.example sets only variables that the files have, and all of them" \
        deploy/check/variables.sh
else
    skip "compose" "docker compose is not here"
fi

# --- Prometheus -------------------------------------------------------------------------------------------------------

if has promtool; then
    check "rules of deploy/prometheus" promtool check rules deploy/prometheus/rules/*.yaml
    check "their unit tests" promtool test rules deploy/prometheus/tests/*.yaml
    check "deploy/prometheus/prometheus.yaml" promtool check config --syntax-only deploy/prometheus/prometheus.yaml
    # Debian's promtool is built without Kubernetes' service discovery.
    sed 's/kubernetes_sd_configs: .*/static_configs: [{ targets: [] }]/' deploy/kubernetes/monitoring/prometheus.yaml \
        > "$OUT/prometheus.yaml"
    check "deploy/kubernetes/monitoring/prometheus.yaml" promtool check config --syntax-only "$OUT/prometheus.yaml"
else
    skip "Prometheus' rules" "promtool is not here (Debian package prometheus)"
fi
check "every metric in rules and dashboards is defined" deploy/check/metrics.sh
check "the dashboard is JSON" python3 -m json.tool deploy/grafana/dashboards/switchyard.json

# --- systemd ----------------------------------------------------------------------------------------------------------

if has systemd-analyze; then
    check "units of deploy/systemd" deploy/check/units.sh
else
    skip "deploy/systemd" "systemd-analyze is not here (Debian package systemd)"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && { [ -z "${CI:-}" ] || [ "$skipped" -eq 0 ]; }
