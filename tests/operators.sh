#!/usr/bin/env bash
# Four operators, each in a network namespace, with a key, a folder and a cluster file that nobody else has: they begin a
# cluster, the network splits and heals, a disk is lost, and a backup becomes a new cluster. They use what README.md and
# docs/procedures.md show and nothing else. It prints what they see; `--write` puts that into docs/operators.md.
#
# Takes root, `ip`, and `elea` in the PATH. It ends what it started, and removes what it made.
set -euo pipefail

page="$(cd "$(dirname "$0")/.." && pwd)/docs/operators.md"
operators=(anna bert cleo dora)
patience=60

fail() {
    echo "operators.sh: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "this takes root, for network namespaces"
command -v ip >/dev/null || fail "this takes \`ip\` (Debian's iproute2)"
command -v elea >/dev/null || fail "elea is not in the PATH: cargo build --release, and PATH=\$PWD/target/release:\$PATH"

here=$(mktemp -d)
mark="elea$$"
declare -A pids=()

clean() {
    for pid in "${pids[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for who in wire "${operators[@]}"; do ip netns del "$mark-$who" 2>/dev/null || true; done
    rm -rf "$here"
}
trap clean EXIT
ip netns add "$mark-wire" 2>/dev/null || fail "this takes network namespaces, and the system makes none"

# The network: one bridge for all, and another one for whoever is cut off.
wire() { ip -n "$mark-wire" "$@"; }
for bridge in joined apart; do
    wire link add "$bridge" type bridge
    wire link set "$bridge" up
done
for n in 0 1 2 3; do
    who=${operators[$n]}
    ip netns add "$mark-$who"
    wire link add "to-$who" type veth peer name net netns "$mark-$who"
    wire link set "to-$who" master joined up
    ip -n "$mark-$who" addr add "10.77.0.$((n + 1))/24" dev net
    ip -n "$mark-$who" link set net up
    ip -n "$mark-$who" link set lo up
    mkdir "$here/$who"
done

# Somebody's command, in the own folder and namespace.
inside() {
    local who=$1
    shift
    (cd "$here/$who" && env -u ELEA_SESSIONS ELEA_CLUSTER=cluster.toml ELEA_KEY=client-0.key \
        ip netns exec "$mark-$who" sh -c "$*" 2>&1)
}

# The same, shown with what it says.
does() {
    local who=$1 code=0
    shift
    echo "$who\$ $*"
    inside "$who" "$*" || code=$?
    [ $code = 0 ] || echo "(exit code $code)"
}

# The same, again and again until what it says has this in it.
sees() {
    local who=$1 what=$2 said end=$((SECONDS + patience))
    shift 2
    until said=$(inside "$who" "$*" || true) && grep -q -- "$what" <<<"$said"; do
        [ $SECONDS -lt $end ] || fail "$who never saw \"$what\" from \`$*\`: $said"
        sleep 0.2
    done
    echo "$who\$ $*"
    echo "$said"
}

# A replica in the background.
runs() {
    local who=$1
    shift
    echo "$who\$ $* >> log 2>&1 &"
    (cd "$here/$who" && exec ip netns exec "$mark-$who" "$@" >>log 2>&1) &
    pids[$who]=$!
}

stops() {
    echo "# $1 ends the replica, with SIG$2"
    kill "-$2" "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
}

sends() {
    echo "# $1 sends $2 to ${*:3}"
    for to in "${@:3}"; do cp "$here/$1/$2" "$here/$to/"; done
}

# Each sends the file of the own name to all others: PREFIX of the name.
exchange() {
    local who others
    for who in "${operators[@]}"; do
        mapfile -t others < <(printf '%s\n' "${operators[@]}" | grep -v "$who")
        sends "$who" "$1$who.toml" "${others[@]}"
    done
}

chapter() { printf '\n## %s\n' "$1"; }

story() {
    chapter "Each makes the own keys"
    for n in 0 1 2 3; do
        who=${operators[$n]}
        does "$who" "elea init . --replicas 1 --host 10.77.0.$((n + 1)) --name $who >/dev/null"
        does "$who" "sed -n '/^\\[\\[/,/^\$/p' cluster.toml | sed 's/^id = 0/id = $n/; s/client-0/$who/' | tee $who.toml"
    done
    chapter "Everybody puts the file together, and compares"
    exchange ""
    for who in "${operators[@]}"; do
        does "$who" "(echo 'name = \"town\"'; echo 'f = 1'; cat anna.toml bert.toml cleo.toml dora.toml) > cluster.toml"
        does "$who" "elea config check cluster.toml"
    done
    chapter "They start"
    for who in "${operators[@]}"; do
        does "$who" "printf 'cluster = \"cluster.toml\"\\nkey = \"replica-0.key\"\\ndata = \"data\"\\nadmin = \"127.0.0.1:7180\"\\n' > replica.toml"
        does "$who" "elea config check replica.toml"
        runs "$who" elea replica --config replica.toml
    done
    for who in "${operators[@]}"; do sees "$who" well "elea health --ready && echo well"; done
    does anna "elea put greeting hello"
    does dora "elea get greeting"
    does bert "elea incr stock 10 --final"
    sees cleo "r3.*yes" "elea status"

    chapter "The network splits: anna and bert here, cleo and dora there"
    for who in cleo dora; do
        echo "# $who's line is moved to another switch"
        wire link set "to-$who" master apart
    done
    sees anna "takes 3" "elea health --ready"
    sees cleo "takes 3" "elea health --ready"
    does anna "elea incr stock -4 --weak --timeout 60s"
    does bert "elea append log 'sold four here; ' --weak --timeout 60s"
    does cleo "elea incr stock -3 --weak --timeout 60s"
    does dora "elea append log 'sold three there; ' --weak --timeout 60s"
    does bert "elea get stock --weak"
    does dora "elea get stock --weak"
    does anna "elea put greeting later --timeout 2s"

    chapter "It heals"
    for who in cleo dora; do
        echo "# $who's line is moved back"
        wire link set "to-$who" master joined
    done
    for who in "${operators[@]}"; do sees "$who" well "elea health --ready && echo well"; done
    sees anna "^3$" "elea get stock --timeout 60s"
    does dora "elea get log"
    sees bert "r3.*yes" "elea status"

    chapter "Dora loses the disk"
    stops dora KILL
    does dora "rm -r data"
    does anna "elea incr stock -1"
    runs dora elea replica --config replica.toml
    sees dora "observer ┆ v[1-9]" "elea status"
    does cleo "elea get stock"

    chapter "A backup becomes a new cluster, with four voters"
    does bert "elea backup --out town.backup --timeout 60s"
    sends bert town.backup anna cleo dora
    for n in 0 1 2 3; do
        who=${operators[$n]}
        does "$who" "elea init new --replicas 1 --host 10.77.0.$((n + 1)) --base-port 7200 --name new --from town.backup --from-cluster cluster.toml | head -2"
        does "$who" "sed -n '/^\\[\\[/,/^\$/p' new/cluster.toml | sed 's/^id = 0/id = $n/; s/client-0/$who/' > new-$who.toml"
    done
    exchange new-
    for who in "${operators[@]}"; do
        does "$who" "(echo 'name = \"new\"'; echo 'f = 1'; grep ^initial_state new/cluster.toml; cat new-anna.toml new-bert.toml new-cleo.toml new-dora.toml) > new/town.toml"
        does "$who" "elea config check new/town.toml"
        does "$who" "elea restore --from town.backup --cluster new/town.toml --key new/replica-0.key --data new/data"
        stops "$who" TERM
        runs "$who" elea replica --cluster new/town.toml --key new/replica-0.key --data new/data --admin
    done
    for who in "${operators[@]}"; do sees "$who" well "elea health --ready && echo well"; done
    does anna "elea get stock --cluster new/town.toml --key new/client-0.key --timeout 60s"
    does dora "elea get log --cluster new/town.toml --key new/client-0.key"
    sees cleo "r3.*voter" "elea status --cluster new/town.toml --key new/client-0.key"
}

if [ "${1:-}" = --write ]; then
    story >"$here/story"
    sed -i '/^<!-- begin -->$/,$d' "$page"
    {
        echo '<!-- begin -->'
        awk '/^## / { if (open) print "```\n"; print; print "\n<!-- not replayed: it takes root and network namespaces -->\n```console"; open = 1; next }
             open && NF { print }
             END { print "```" }' "$here/story"
    } >>"$page"
else
    story
fi
