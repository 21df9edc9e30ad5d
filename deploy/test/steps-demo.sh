# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test that need one machine; sourced by run.sh.

DEMO_PORT=17400

# The settings of every project: the image that was built here, and ports that nobody else has.
use_demo() {
    export SWITCHYARD_IMAGE=$IMAGE GATEWAY_PUBLISH=127.0.0.1:$DEMO_PORT SWITCHYARD_CERTS=$WORK/certs
    export PROMETHEUS_IMAGE=switchyard-prometheus:deploy-test PROMETHEUS_PUBLISH=127.0.0.1:19090
}

demo() { on alpha docker compose --ansi never --progress quiet --file "$ROOT/compose/demo.yaml" "$@"; }

# Fails, with what was expected, unless a text holds another.
expect() {
    case $1 in *"$2"*) return 0 ;; esac
    echo "expected: $2"
    echo "found:    $1"
    return 1
}

# Tries a command for so many seconds.
until_true() {
    local end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.3
    done
}

ask() { near alpha timeout 60 "$SWITCHYARD" generate --endpoint "127.0.0.1:$DEMO_PORT" --strict "$@" "$PROMPT"; }
replicas() { near alpha "$SWITCHYARD" status --endpoint "127.0.0.1:$DEMO_PORT" | grep -c "^$1 .* ready " ; }
has_replicas() { [ "$(replicas "$1")" -eq "$2" ]; }

# Load: some clients that ask, wait for the answer, and ask again. An answer that differs is a failure; `strict` makes one of
# every token that no host computed.
load_begin() {
    local worker
    rm -f "$WORK"/load.*
    for worker in 1 2; do
        (
            good=0 bad=0
            while [ ! -e "$WORK/load.stop" ] && [ "$SECONDS" -lt 300 ]; do
                if [ "$(ask 2>>"$WORK/load.errors")" = "$ANSWER" ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
            done
            echo "$good $bad" > "$WORK/load.$worker"
        ) &
        LOAD_WORKERS+=($!)
    done
}

# Ends the load; sets GOOD and BAD.
load_end() {
    touch "$WORK/load.stop"
    [ ${#LOAD_WORKERS[@]} -eq 0 ] || wait "${LOAD_WORKERS[@]}"
    LOAD_WORKERS=()
    read -r GOOD BAD < <(cat "$WORK"/load.[0-9] 2>/dev/null | awk '{ good += $1; bad += $2 } END { print good + 0, bad + 0 }')
}
LOAD_WORKERS=()

step_engine() {
    engines_prepare && engine_up alpha || return 1
    NOTE="$ENGINES, Docker $(on alpha docker version --format '{{.Server.Version}}')"
    NOTE+=", compose $(on alpha docker compose version --short)"
}

step_image() {
    "$ROOT/deploy/image/collect-root.sh" "$SWITCHYARD" "$ROOT/.build/image/root" || return 1
    on alpha docker build --quiet --file "$ROOT/deploy/Containerfile" --tag "$IMAGE" --build-arg BINARY=prebuilt \
        --build-arg REVISION="$(git -C "$ROOT" rev-parse HEAD 2>/dev/null || echo unknown)" "$ROOT" || return 1
    NOTE="$(on alpha docker image inspect --format '{{.Size}}' "$IMAGE" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
}

step_image_run() {
    local user
    user=$(on alpha docker image inspect --format '{{.Config.User}} {{.Config.StopSignal}}' "$IMAGE")
    expect "$user" "65532:65532 SIGTERM" || return 1
    NOTE="version $(on alpha docker run --rm --read-only --cap-drop ALL --network none \
        --security-opt no-new-privileges "$IMAGE" --version)"
}

step_demo_up() {
    use_demo
    demo up --detach --wait || return 1
    demo ps --all
}

step_demo_generate() {
    expect "$(demo run --rm generate --strict "$PROMPT" 2>&1)" "$ANSWER" || return 1
    expect "$(ask)" "$ANSWER"
}

step_demo_again() {
    local before
    before=$(demo ps --quiet | sort)
    demo up --detach --wait || return 1
    expect "$(demo ps --quiet | sort)" "$before" || return 1
    expect "$(demo logs shard 2>&1)" "it is kept"
}

step_demo_scale() {
    has_replicas pool-0 1 || return 1
    load_begin
    demo up --detach --wait --no-recreate --scale pool-0=3 && until_true 30 has_replicas pool-0 3
    local grown=$?
    sleep 3
    near alpha "$SWITCHYARD" status --endpoint "127.0.0.1:$DEMO_PORT"
    demo up --detach --wait --no-recreate --scale pool-0=1 && until_true 60 has_replicas pool-0 1
    local shrunk=$?
    load_end
    cat "$WORK/load.errors"
    NOTE="$GOOD requests, $BAD failures"
    [ "$grown" -eq 0 ] && [ "$shrunk" -eq 0 ] && [ "$GOOD" -gt 20 ] && [ "$BAD" -eq 0 ]
}

restarted() { [ "$(on alpha docker inspect --format '{{.RestartCount}} {{.State.Health.Status}}' "$1")" = "1 healthy" ]; }

step_demo_kill() {
    local host began
    if [ "$ENGINES" = given ] && [ "$(id -u)" -ne 0 ]; then
        NOTE="ending a container's process needs root"
        return 77
    fi
    host=$(demo ps --quiet pool-0 | head -n 1)
    kill_container alpha "$host" || return 1
    began=$(date +%s%N)
    until_true 60 restarted "$host" || return 1
    NOTE=$(awk -v from="$began" -v to="$(date +%s%N)" 'BEGIN { printf "healthy after %.1f s", (to - from) / 1e9 }')
    until_true 30 has_replicas pool-0 1 && expect "$(ask)" "$ANSWER"
}

# A small image of this machine's Prometheus, where none can be pulled.
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
    near alpha curl --silent --fail --get --data-urlencode "query=$1" "http://127.0.0.1:19090/api/v1/query" |
        sed -nE 's/.*"value":\[[0-9.]+,"([^"]*)"\].*/\1/p'
}
is_measured() { [ "$(measured "$1")" = "$2" ]; }

step_demo_monitoring() {
    local rules address part
    if ! "$SWITCHYARD" gateway --help | grep -q -e --admin-listen; then
        NOTE="this executable has no metrics"
        return 77
    fi
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
    until_true 60 is_measured 'sum(switchyard_expert_replicas{state="serving"})' 2 || return 1
    rules=$(near alpha curl --silent --fail "http://127.0.0.1:19090/api/v1/rules")
    expect "$rules" SwitchyardPoolWithoutHosts && expect "$rules" "instance:switchyard_host_busy:ratio_rate2m" || return 1
    case $rules in *'"health":"err"'*) echo "$rules"; return 1 ;; esac
    for part in gateway:7410 pool-0:7411; do
        address=$(on alpha docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' \
            "$(demo ps --quiet "${part%%:*}" | head -n 1)" | cut -d ' ' -f 1)
        near alpha curl --silent --fail "http://$address:${part##*:}/metrics" > "$WORK/metrics" || return 1
        promtool check metrics < "$WORK/metrics" || return 1
    done
    NOTE="$(measured 'count({__name__=~"switchyard_.*"})') series; promtool check metrics is content"
}

step_demo_logs() {
    local logs
    logs=$(demo logs --no-color gateway pool-0 2>&1)
    expect "$logs" "an expert host joined" && expect "$logs" "serving experts" && expect "$logs" "every expert is held"
}

# Nothing of a project is left: containers, networks, volumes.
nothing_left() {
    local left
    left=$(on "$1" docker ps --all --quiet --filter "label=com.docker.compose.project=$2"
        on "$1" docker network ls --quiet --filter "label=com.docker.compose.project=$2"
        on "$1" docker volume ls --quiet --filter "label=com.docker.compose.project=$2")
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

step_demo_down() {
    demo --profile client --file "$ROOT/compose/monitoring.yaml" down --volumes || return 1
    nothing_left alpha switchyard-demo
}
