# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test that replace parts of the demo under load; sourced by run.sh.

# As docs/deployment.md says under "Upgrades": start one more host with the new image, then remove the old one.
step_demo_upgrade() {
    local pool old image=$IMAGE-next
    on alpha docker tag "$IMAGE" "$image" || return 1
    load_begin
    for pool in pool-0 pool-1; do
        old=$(demo ps --quiet "$pool")
        SWITCHYARD_IMAGE=$image demo up --detach --wait --no-recreate --no-deps --scale "$pool=2" "$pool" &&
            until_true 60 has_replicas "$pool" 2 &&
            on alpha docker stop "$old" && on alpha docker rm "$old" &&
            SWITCHYARD_IMAGE=$image demo up --detach --wait --no-recreate --no-deps --scale "$pool=1" "$pool" &&
            until_true 60 has_replicas "$pool" 1 || { load_end; return 1; }
        expect "$(demo ps --format '{{.Image}}' "$pool")" "$image" || { load_end; return 1; }
    done
    load_end
    cat "$WORK/load.errors"
    NOTE="$GOOD requests, $BAD failures"
    [ "$GOOD" -gt 20 ] && [ "$BAD" -eq 0 ]
}

# Starts a container of a service that compose does not count: NAME SERVICE VARIABLE=VALUE...
beside() {
    local name=$1 service=$2 settings=()
    shift 2
    for setting in "$@"; do settings+=(--env "$setting"); done
    demo run --detach --no-deps --name "$name" "${settings[@]}" "$service"
}
is_healthy() { [ "$(on alpha docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
is_mismatched() { near alpha "$SWITCHYARD" status --endpoint "127.0.0.1:$DEMO_PORT" | grep "^pool-0 .* mismatched " >/dev/null; }

# Another checkpoint of the same shape, cut into the volume, and what it answers: NEXT_ANSWER.
next_model() {
    local next=$WORK/next-model
    [ -z "${NEXT_ANSWER:-}" ] || return 0
    cp -r "$ROOT/deploy/models/switch-mini" "$next"
    # Other weights: the last tensors are all zero.
    dd if=/dev/zero of="$next/model.safetensors" bs=4096 count=256 conv=notrunc status=none \
        seek=$(($(stat -c %s "$next/model.safetensors") / 4096 - 256)) || return 1
    SWITCHYARD_MODEL_FOLDER=$next demo run --rm --no-deps shard shard /model --out /shards/next --pools 2 || return 1
    NEXT_ANSWER=$("$SWITCHYARD" generate --local "$next" --threads 1 "$PROMPT")
    [ -n "$NEXT_ANSWER" ] && [ "$NEXT_ANSWER" != "$ANSWER" ]
}

# Another checkpoint beside the first: hosts and a gateway of its own, and a host that is in the wrong pool.
step_demo_model() {
    local name
    next_model || return 1
    load_begin
    beside "$PROJECT-next-0" pool-0 SWITCHYARD_SHARD=/shards/next/pool-0 &&
        beside "$PROJECT-next-1" pool-1 SWITCHYARD_SHARD=/shards/next/pool-1 &&
        beside "$PROJECT-next-gateway" gateway SWITCHYARD_MODEL=/shards/next/gateway \
            "SWITCHYARD_POOL=pool-0=dns:///$PROJECT-next-0:7401;pool-1=dns:///$PROJECT-next-1:7401" &&
        until_true 60 is_healthy "$PROJECT-next-gateway" &&
        ANSWER=$NEXT_ANSWER answers demo run --rm --no-deps --env "SWITCHYARD_ENDPOINT=$PROJECT-next-gateway:7400" \
            generate --strict "$PROMPT" &&
        on alpha docker network disconnect "$PROJECT-demo_experts" "$PROJECT-next-0" &&
        on alpha docker network connect --alias pool-0 "$PROJECT-demo_experts" "$PROJECT-next-0" &&
        until_true 30 is_mismatched
    local outcome=$?
    near alpha "$SWITCHYARD" status --endpoint "127.0.0.1:$DEMO_PORT"
    load_end
    cat "$WORK/load.errors"
    for name in gateway 0 1; do
        on alpha docker logs "$PROJECT-next-$name" 2>&1 | tail -n 5
        on alpha docker rm --force "$PROJECT-next-$name"
    done
    NOTE="$GOOD requests to the first model, $BAD failures"
    [ "$outcome" -eq 0 ] && [ "$GOOD" -gt 10 ] && [ "$BAD" -eq 0 ]
}

rolling() { demo --file "$ROOT/compose/rollout.yaml" "$@"; }
rollout() { rolling exec -T gateway /usr/bin/switchyard rollout --endpoint 127.0.0.1:7400 "$@"; }

# Prints the answer where it is the one of either checkpoint; counts those of the new one.
ask_either() {
    local found
    found=$(ask --seed "$RANDOM") || return 1
    if [ "$found" = "$NEXT_ANSWER" ]; then
        echo next >> "$WORK/rollout.next"
        found=$ANSWER
    fi
    echo "$found"
}

# The cluster's processes stay; the checkpoint changes under the load, and back.
step_demo_rollout() {
    local outcome before after
    rm -f "$WORK/rollout.next"
    next_model && rolling up --detach --wait || return 1
    before=$(rolling ps --quiet | sort)
    load_begin ask_either
    rollout next --canary 50% && sleep 3 && rollout --status && rollout next --promote && ANSWER=$NEXT_ANSWER answers ask &&
        rollout model --canary 50% && rollout --back && ANSWER=$NEXT_ANSWER answers ask &&
        rollout model --promote && answers ask
    outcome=$?
    load_end
    cat "$WORK/load.errors"
    after=$(rolling ps --quiet | sort)
    NOTE="$GOOD requests, $(cat "$WORK/rollout.next" 2>/dev/null | wc -l) of them to the new checkpoint; $BAD failures"
    [ "$outcome" -eq 0 ] && [ "$GOOD" -gt 20 ] && [ "$BAD" -eq 0 ] && [ -s "$WORK/rollout.next" ] && [ "$before" = "$after" ]
}
