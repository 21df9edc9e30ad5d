# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test with Prometheus beside the demo; sourced by run.sh.

PROMETHEUS=http://127.0.0.1:19090/api/v1

# A small image of this machine's Prometheus, for engines that cannot pull one.
prometheus_image() {
    local folder=$WORK/prometheus
    "$ROOT/deploy/image/collect-root.sh" "$(command -v prometheus)" "$folder/root" || return 1
    cat > "$folder/Containerfile" <<'FILE'
FROM scratch
COPY root /
COPY --chown=65534:65534 root/mnt /prometheus
USER 65534:65534
ENTRYPOINT ["/usr/bin/prometheus"]
FILE
    on alpha docker build --quiet --file "$folder/Containerfile" --tag "$PROMETHEUS_IMAGE" "$folder"
}

# The value of a query's only sample.
measured() {
    near alpha curl --silent --fail --get --data-urlencode "query=$1" "$PROMETHEUS/query" |
        sed -nE 's/.*"value":\[[0-9.]+,"([^"]*)"\].*/\1/p'
}
is_measured() { [ "$(measured "$1")" = "$2" ]; }

is_positive() { measured "$1" | awk '$1 > 0 { found = 1 } END { exit !found }'; }

step_demo_monitoring() {
    local rules address part
    if command -v prometheus >/dev/null; then
        prometheus_image || return 1
    elif [ "$ENGINES" = given ]; then
        unset PROMETHEUS_IMAGE
    else
        NOTE="needs the Debian package prometheus"
        return 77
    fi
    demo --file "$ROOT/compose/monitoring.yaml" up --detach --no-deps prometheus || return 1
    until_true 60 is_measured 'count(up{job=~"switchyard.*"} == 1)' 3 || { demo logs prometheus; return 1; }
    is_measured 'count(switchyard_ready == 1)' 3 || return 1
    until_true 60 is_measured 'sum(switchyard_expert_replicas{state="ready"})' 2 || return 1
    rules=$(near alpha curl --silent --fail "$PROMETHEUS/rules")
    expect "$rules" SwitchyardPoolWithoutHosts && expect "$rules" "instance:switchyard_host_busy:ratio_rate2m" || return 1
    case $rules in *'"health":"err"'*) echo "$rules"; return 1 ;; esac
    for part in gateway:7410 pool-0:7411; do
        address=$(on alpha docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' \
            "$(demo ps --quiet "${part%%:*}" | head -n 1)" | cut -d ' ' -f 1)
        near alpha curl --silent --fail "http://$address:${part##*:}/metrics" > "$WORK/metrics" || return 1
        promtool check metrics < "$WORK/metrics" || return 1
    done
    # Rates need some requests, and two scrapes after the first of them.
    for _ in $(seq 20); do answers ask || return 1; done
    until_true 60 is_positive 'sum(rate(switchyard_host_rows_total[2m]))'
    for _ in $(seq 20); do answers ask || return 1; done
    until_true 30 dashboard_answered || return 1
    NOTE="$(measured 'count({__name__=~"switchyard_.*"})') series; $NOTE"
}

# Prometheus understands every query of the dashboard, and most have values already.
dashboard_answered() {
    local query total=0 empty=0
    while IFS= read -r query; do
        near alpha curl --silent --fail --get --data-urlencode "query=$query" "$PROMETHEUS/query" > "$WORK/answer" ||
            { echo "not understood: $query"; return 1; }
        total=$((total + 1))
        if grep -q '"result":\[\]' "$WORK/answer"; then
            empty=$((empty + 1))
            echo "no value: $query"
        fi
    done < <(python3 -c '
import json, sys
for panel in json.load(open(sys.argv[1]))["panels"]:
    for target in panel.get("targets", []):
        print(target["expr"])
' "$ROOT/deploy/grafana/dashboards/switchyard.json")
    NOTE="$((total - empty)) of the dashboard's $total queries have values"
    [ "$total" -gt 20 ] && [ "$((empty * 4))" -lt "$total" ]
}

alert_fires() { is_positive "count(ALERTS{alertname=\"$1\",alertstate=\"firing\"})"; }
alert_is_over() { is_measured "count(ALERTS{alertname=\"$1\"}) or vector(0)" 0; }

step_demo_alert() {
    local began
    on alpha docker inspect "$PROJECT-demo-prometheus-1" >/dev/null 2>&1 || { NOTE="no Prometheus"; return 77; }
    demo stop pool-1 || return 1
    began=$SECONDS
    until_true 90 alert_fires SwitchyardPoolWithoutHosts || return 1
    NOTE="after $((SECONDS - began)) s"
    # Requests that allow drops are still answered.
    near alpha timeout 60 "$SWITCHYARD" generate --endpoint "127.0.0.1:$DEMO_PORT" --max-dropped-fraction 1 "$PROMPT" 2>&1 | grep UNAVAILABLE || return 1
    demo start pool-1 && until_true 60 has_replicas pool-1 1 || return 1
    until_true 60 alert_is_over SwitchyardPoolWithoutHosts || return 1
    answers ask
}
