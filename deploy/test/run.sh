#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings the deploy files up in a real container engine, sends requests, and takes everything down again.
#
#   deploy/test/run.sh [STEP...]     all steps, or those whose names contain one of the words (and what they need)
#
# It builds an image from the executable .build/release/switchyard (SWITCHYARD names another one). engine.sh gets what an engine
# needs and this machine lacks. Settings: DEPLOY_TEST_ENGINE=own ignores a running Docker; DEPLOY_TEST_KEEP=1 leaves everything
# up and prints where it is; DEPLOY_TEST_REPORT=FILE writes the table there as Markdown. With CI set, a step that is skipped fails
# the run: as root on Debian none is.
set -uo pipefail

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
SWITCHYARD=${SWITCHYARD:-$ROOT/.build/release/switchyard}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/switchyard-deploy.XXXXXX")
IMAGE=switchyard:deploy-test
# Not the compose files' own names, which may be running on the engine that the test uses.
PROJECT=switchyard-deploy-test
PROMPT='A horse! a horse! my <extra_id_0> for a horse!'
ANSWER='<extra_id_0> kingdom<extra_id_1></s>'

. "$ROOT/deploy/test/engine.sh"
. "$ROOT/deploy/test/steps-demo.sh"
. "$ROOT/deploy/test/steps-upgrade.sh"
. "$ROOT/deploy/test/steps-fetch.sh"
. "$ROOT/deploy/test/steps-monitoring.sh"
. "$ROOT/deploy/test/steps-secure.sh"
. "$ROOT/deploy/test/steps-swarm.sh"
. "$ROOT/deploy/test/steps-kube.sh"

# Each step is a function that fails on a fault, and may set NOTE for the table.
STEPS=(
    "engine          | a container engine                                    | step_engine"
    "image           | the image is built                                    | step_image"
    "image-run       | it runs unprivileged, read-only, without capabilities | step_image_run"
    "demo-up         | compose/demo.yaml comes up                            | step_demo_up"
    "demo-generate   | requests succeed, from inside and from outside        | step_demo_generate"
    "demo-again      | a second 'up' changes nothing                         | step_demo_again"
    "demo-scale      | a pool scaled 1 to 3 to 1 under load, no failure      | step_demo_scale"
    "demo-kill       | a killed host is restarted by policy                  | step_demo_kill"
    "demo-upgrade    | hosts are replaced under load, no failure             | step_demo_upgrade"
    "demo-model      | a second model beside the first, never mixed          | step_demo_model"
    "demo-rollout    | the checkpoint changes under load and back, never mixed | step_demo_rollout"
    "demo-fetch      | a host fetches its shard over HTTPS and keeps it      | step_demo_fetch"
    "demo-monitoring | Prometheus scrapes every part and loads the rules     | step_demo_monitoring"
    "demo-alert      | a stopped pool raises an alert; a started one ends it | step_demo_alert"
    "demo-logs       | logs tell what happened                               | step_demo_logs"
    "demo-down       | it goes down and leaves nothing behind                | step_demo_down"
    "tls-certs       | a container makes certificates                        | step_tls_certs"
    "tls-up          | the demo comes up with compose/tls.yaml               | step_tls_up"
    "tls-hosts       | a host refuses clients without a certificate          | step_tls_hosts"
    "tls-tokens      | the gateway refuses clients without a token           | step_tls_tokens"
    "tls-clients     | if set, it requires client certificates too           | step_tls_clients"
    "tls-down        | it goes down and leaves nothing behind                | step_tls_down"
    "apart-up        | gateway and experts on two machines, with mutual TLS  | step_apart_up"
    "apart-generate  | requests succeed between them                         | step_apart_generate"
    "apart-scale     | a pool scaled 1 to 3 on its own machine               | step_apart_scale"
    "apart-down      | both go down and leave nothing behind                 | step_apart_down"
    "swarm-up        | compose/stack.yaml comes up on a swarm of three machines | step_swarm_up"
    "swarm-generate  | requests succeed through the gateway of each machine  | step_swarm_generate"
    "swarm-scale     | a pool scaled 1 to 3 to 1 under load, no failure      | step_swarm_scale"
    "swarm-update    | a new image and new certificates under load, no failure | step_swarm_update"
    "swarm-node      | a machine is lost under load, no failure              | step_swarm_node"
    "swarm-down      | it goes down and leaves nothing behind                | step_swarm_down"
    "kube-up         | podman kube play of deploy/kubernetes comes up        | step_kube_up"
    "kube-generate   | requests succeed, with tokens of a config map         | step_kube_generate"
    "kube-kill       | a pod's host that is killed starts again              | step_kube_kill"
    "kube-down       | it goes down and leaves nothing behind                | step_kube_down"
)
# The steps that a group needs, if only some are requested.
declare -A NEEDS=([demo]="demo-up" [tls]="tls-certs tls-up" [apart]="apart-up" [swarm]="swarm-up" [kube]="kube-up")

finish() {
    if [ -n "${DEPLOY_TEST_KEEP:-}" ]; then
        echo "kept: $WORK; engines' first processes: ${ENGINE_INIT[*]:-none}"
        return
    fi
    load_end >/dev/null 2>&1
    kube_end
    [ -z "${SERVER:-}" ] || kill "$SERVER"
    if [ "${ENGINES:-}" = given ]; then
        docker ps --all --quiet --filter "name=$PROJECT-" | xargs --no-run-if-empty docker rm --force >/dev/null
        for kind in volume network; do
            docker "$kind" ls --quiet --filter "name=$PROJECT-" | xargs --no-run-if-empty docker "$kind" rm >/dev/null
        done
        docker image ls --quiet --filter "reference=*:deploy-test*" | sort -u | xargs --no-run-if-empty docker image rm --force >/dev/null
    fi
    engines_down
    rm -rf "$WORK"
}
trap finish EXIT
trap 'exit 130' INT TERM

wanted() {
    local step=$1 word group
    shift
    [ $# -eq 0 ] && return 0
    case $step in engine | image) return 0 ;; esac
    for word in "$@"; do
        case $step in *"$word"*) return 0 ;; esac
        group=${word%%-*}
        case " ${NEEDS[$group]:-} " in *" $step "*) return 0 ;; esac
    done
    return 1
}

if [ ! -x "$SWITCHYARD" ]; then
    echo "error: $SWITCHYARD does not exist; 'make build' makes it" >&2
    exit 2
fi

# A Docker that happens to run on the machine would leave steps out.
if [ -n "${CI:-}" ] && [ "$(id -u)" -eq 0 ]; then DEPLOY_TEST_ENGINE=${DEPLOY_TEST_ENGINE:-own}; fi

passed=0 failed=0 skipped=0 table=() left_out=" "
for entry in "${STEPS[@]}"; do
    IFS='|' read -r name what function <<< "$entry"
    name=$(echo $name) what=$(echo $what) function=$(echo $function)
    wanted "$name" "$@" || continue
    # A group whose first step was skipped.
    case $left_out in *" ${name%%-*} "*) skipped=$((skipped + 1)) && continue ;; esac
    NOTE=""
    log=$WORK/$name.log
    began=$(date +%s%N)
    # Not in a subshell, since steps set variables for later ones.
    $function >"$log" 2>&1
    status=$?
    seconds=$(awk -v from="$began" -v to="$(date +%s%N)" 'BEGIN { printf "%.1f", (to - from) / 1e9 }')
    case $status in
    0) outcome=passed passed=$((passed + 1)) ;;
    77)
        outcome=skipped skipped=$((skipped + 1))
        case $name in *-up) left_out+="${name%%-*} " ;; esac
        ;;
    *) outcome=FAILED failed=$((failed + 1)) ;;
    esac
    printf '%-8s %6s s  %s%s\n' "$outcome" "$seconds" "$what" "${NOTE:+ ($NOTE)}"
    table+=("| $what | $outcome | $seconds s | $NOTE |")
    if [ "$outcome" = FAILED ]; then
        sed 's/^/    /' "$log" | tail -n 40
        # All later steps need it.
        case $name in engine | image | *-up | *-certs) break ;; esac
    fi
done
if [ -n "${DEPLOY_TEST_REPORT:-}" ]; then
    { echo "| Step | Outcome | Time | |"; echo "|---|---|---:|---|"; printf '%s\n' "${table[@]}"; } > "$DEPLOY_TEST_REPORT"
fi
echo "$passed passed, $failed failed, $skipped skipped"
if [ -n "${CI:-}" ] && [ "$skipped" -gt 0 ]; then
    echo "error: steps were skipped, for the reasons above, which counts as a failure in continuous integration" >&2
    exit 1
fi
[ "$failed" -eq 0 ]
