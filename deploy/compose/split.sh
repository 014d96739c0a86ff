#!/usr/bin/env bash
# What a split, its healing, and restarts under load look like, on the containers of compose.yaml, and whether what is promised
# holds: exit code 0 if it does, 1 with a sentence if not.
#   deploy/compose/split.sh                          # a cluster of its own, which is removed afterwards
#   ELEA_NEXT_IMAGE=elea:next deploy/compose/split.sh    # the replicas are replaced by ones of another image at the end
# COMPOSE is `docker-compose`, or what is used instead ("docker compose").
set -euo pipefail
cd "$(dirname "$0")"

export COMPOSE_PROJECT_NAME=elea-split
read -ra compose <<<"${COMPOSE:-docker-compose}"
# Containers that wait for orders, by side.
north=
south=
folder=$(mktemp -d)

# Their progress is of no interest, unless they fail.
compose() {
    "${compose[@]}" "$@" 2>"$folder/compose" || {
        cat "$folder/compose" >&2
        return 1
    }
}

clean_up() {
    for each in $north $south; do docker rm --force --volumes "$each" >/dev/null; done
    compose down --volumes >/dev/null || true
    rm -r "$folder"
}
trap clean_up EXIT

fail() {
    echo "FAILED: $*"
    compose logs --tail=20 || true
    exit 1
}

say() { printf '\n== %s\n' "$*"; }

container() { compose ps --quiet "$1"; }

client() { compose run --detach --entrypoint sleep client infinity; }

# Asks from a side, and shows it: SIDE WORDS...
ask() {
    local side=$1
    shift
    printf '%s$ elea %s\n' "$side" "$*"
    docker exec "${!side}" elea "$@" 2>&1 | tee "$folder/answer"
}

# The same many times, of which only the last answer is shown: SIDE TIMES WORDS..., with {} for the number of each.
ask_often() {
    local side=$1 times=$2
    shift 2
    # shellcheck disable=SC2016 # It is shown as it is.
    printf '%s$ for n in $(seq %s); do elea %s; done | tail -1\n' "$side" "$times" "${*//\{\}/\$n}"
    docker exec "${!side}" sh -ec "for n in \$(seq $times); do elea ${*//\{\}/\$n} --timeout 30s; done" | tail -1
}

# Waits for what is bound to become true: SECONDS SENTENCE COMMAND...
await() {
    local end=$((SECONDS + $1)) sentence=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "$sentence did not come true in time"
        sleep 0.2
    done
}

# All four are voters with one head, one state and no proof against anybody.
agree() {
    docker exec "$north" elea status | awk -F'┆' '
        / r[0-9] / && $3 ~ /voter/ { voters++; heads[$6]; states[$9]; evidence += $11 }
        END { exit !(voters == 4 && length(heads) == 1 && length(states) == 1 && evidence == 0) }'
}

# The head of a replica, by its own words.
head_of() { docker exec "$north" elea status | awk -F'┆' -v name="│ $1 " 'index($0, name) == 1 { split($6, head, " "); print head[1] }'; }

# A replica is ready and where the others were when this began: NAME SLOT.
caught_up() { docker exec "$(container "$1")" elea health --ready && [ "$(head_of "$1")" -ge "$2" ]; }

town() { echo "${COMPOSE_PROJECT_NAME}_town"; }

begin() {
    say "a cluster of four"
    compose up --detach
    north=$(client)
    south=$(client)
    docker network connect "${COMPOSE_PROJECT_NAME}_south" "$south"
    await 60 "the first strong answer" docker exec "$north" elea put tide low --timeout 2s
    ask north incr stock 100
    ask south get stock
}

split() {
    say "the south, r2 and r3 with one client, is cut off"
    for each in "$(container r2)" "$(container r3)" "$south"; do docker network disconnect "$(town)" "$each"; done
    ask_often north 20 incr stock -1 --weak
    ask_often south 15 incr stock -1 --weak
    ask_often north 20 add sold "north-{}" --weak
    ask_often south 15 add sold "south-{}" --weak
    for side in north south; do
        if ask "$side" incr late --timeout 3s; then fail "a strong request was answered in one half"; fi
    done
}

heal() {
    say "the south is back"
    docker network connect --alias r2 "$(town)" "$(container r2)"
    docker network connect --alias r3 "$(town)" "$(container r3)"
    docker network connect "$(town)" "$south"
    local begin=$SECONDS
    await 60 "one history" agree
    echo "one head and one state everywhere after $((SECONDS - begin)) s"
    ask north get stock
    [ "$(cat "$folder/answer")" = 65 ] || fail "100 - 20 - 15 sold is 65"
    ask south members sold
    local want
    want=$({ seq -f 'north-%g' 20; seq -f 'south-%g' 15; } | sort)
    [ "$(sort "$folder/answer")" = "$want" ] || fail "the set does not hold what both halves added"
    # These were given up, and may have been executed: at most once each.
    ask north incr late 0
    [ "$(cat "$folder/answer")" -le 2 ] || fail "a request was executed twice"
}

# Four programs that add 1, one request after the other, until they are told to stop; a line for each: how it ended, and after how many ms.
load() {
    docker exec --env ELEA_SESSIONS=/tmp/sessions "$north" sh -c '
        worker() {
            while [ ! -e /tmp/stop ]; do
                begin=$(date +%s%N)
                if elea incr load >/tmp/result.$1 2>&1; then how=done; else how="failed-$?"; fi
                echo "$how $((($(date +%s%N) - begin) / 1000000)) $(tail -1 /tmp/result.$1)"
            done
        }
        rm -f /tmp/stop
        for n in 1 2 3 4; do worker $n & done
        wait'
}

# What was acknowledged is there once, and what failed at most once: FILE NUMBER-BEFORE.
check_load() {
    local acknowledged failed now
    acknowledged=$(grep -c '^done ' "$1" || true)
    failed=$(grep -c '^failed-' "$1" || true)
    ask north get load
    now=$(($(cat "$folder/answer") - $2))
    echo "acknowledged $acknowledged, failed $failed, added $now; answers took $(sort -nk2 "$1" |
        awk '{ all[NR] = $2 } END { print all[int((NR + 1) / 2)] " ms (median), " all[int(NR * 0.99) + 1] " ms (99 of 100), " all[NR] " ms (longest)" }')"
    [ "$acknowledged" -gt 0 ] || fail "nothing was asked"
    [ "$now" -ge "$acknowledged" ] || fail "acknowledged increments are missing"
    [ "$now" -le $((acknowledged + failed)) ] || fail "increments were executed twice"
    [ "$failed" -eq 0 ] || fail "strong requests failed: $(grep -m1 '^failed-' "$1")"
}

# Does something to one replica after the other while there is load: SENTENCE COMMAND...
in_turn() {
    local before loading slot name begin
    say "$1, under load"
    shift
    before=$(docker exec "$north" elea incr load 0)
    load >"$folder/load" &
    loading=$!
    for name in r0 r1 r2 r3; do
        slot=$(head_of r$(((${name#r} + 1) % 4)))
        begin=$(date +%s%N)
        "$@" "$name"
        await 60 "$name at the head of the others" caught_up "$name" "$slot"
        echo "$name is back after $((($(date +%s%N) - begin) / 1000000)) ms"
    done
    docker exec "$north" touch /tmp/stop
    wait "$loading"
    check_load "$folder/load" "$before"
    await 60 "one state" agree
}

restart() {
    local begin=$SECONDS
    compose stop --timeout 30 "$1"
    [ $((SECONDS - begin)) -lt 10 ] || fail "$1 took $((SECONDS - begin)) s to stop"
    compose start "$1"
}

replace() {
    ELEA_IMAGE=${ELEA_NEXT_IMAGE:-${ELEA_IMAGE:-elea:0.1.0}} compose up --detach --no-deps --force-recreate "$1"
}

begin
split
heal
in_turn "a restart of one replica after the other" restart
in_turn "a new container, of ${ELEA_NEXT_IMAGE:-the same image}, for one replica after the other" replace
say "all of it holds"
docker exec "$north" elea status
