# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test that need one machine; sourced by run.sh.

DEMO_PORT=17400

# The settings of every project: the image that was built here, and ports of its own.
use_demo() {
    local files
    # An engine cannot give a container more descriptors than it may have itself.
    files=$(ulimit -Hn)
    if [ "$files" != unlimited ] && [ "$files" -lt 65536 ]; then export OPEN_FILES=$files; fi
    export SWITCHYARD_IMAGE=$IMAGE GATEWAY_PUBLISH=127.0.0.1:$DEMO_PORT SWITCHYARD_CERTS=$WORK/certs
    export PROMETHEUS_IMAGE=switchyard-prometheus:deploy-test PROMETHEUS_PUBLISH=127.0.0.1:19090
}

demo() { on alpha docker compose --ansi never --progress quiet --env-file /dev/null --project-name "$PROJECT-demo" \
        --file "$ROOT/compose/demo.yaml" "$@"; }

# Fails, and prints what was expected, unless a text contains another.
expect() {
    case $1 in *"$2"*) return 0 ;; esac
    echo "expected: $2"
    echo "found:    $1"
    return 1
}

# Fails, and prints what it printed, unless a command prints the model's answer and nothing else.
answers() {
    local found
    found=$("$@")
    [ "$found" = "$ANSWER" ] && return 0
    echo "expected exactly: $ANSWER"
    echo "found:            $found"
    return 1
}

# Retries a command until it succeeds, for at most this number of seconds.
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

# Load: a few clients that send one request after another, with `ask` or the function that is named. A different answer is a
# failure; with `strict`, so is every token that no host computed.
load_begin() {
    local worker ask=${1:-ask}
    rm -f "$WORK"/load.*
    for worker in 1 2; do
        (
            good=0 bad=0 SECONDS=0
            while [ ! -e "$WORK/load.stop" ] && [ "$SECONDS" -lt 300 ]; do
                if [ "$("$ask" 2>>"$WORK/load.errors")" = "$ANSWER" ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
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
    answers demo run --rm generate --strict "$PROMPT" && answers ask
}

step_demo_again() {
    local before
    before=$(demo ps --quiet | sort)
    demo up --detach --wait || return 1
    expect "$(demo ps --quiet | sort)" "$before" || return 1
    expect "$(demo logs shard 2>&1)" "keeping it"
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
    until_true 30 has_replicas pool-0 1 && answers ask
}

step_demo_logs() {
    local logs
    logs=$(demo logs --no-color gateway pool-0 2>&1)
    expect "$logs" "an expert host is ready" && expect "$logs" "serving experts" && expect "$logs" "every expert is held"
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
    nothing_left alpha "$PROJECT-demo"
}
