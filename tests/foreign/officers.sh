#!/usr/bin/env bash
# Two officers approve what a region office grants, each with a key of their own, through files. HIE_PROGRAM names the
# program. Prints one line for each check; ends with 1 at the first that fails.
set -euo pipefail
hie=${HIE_PROGRAM:-target/debug/hie}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
region=$folder/region
check() { echo "ok   $1"; }
fail() {
    echo "FAIL $1"
    exit 1
}
office() { "$hie" authority "$1" --dir "$region" "${@:2}" 2>/dev/null; }
sign() { "$hie" authority approve --officer-key "$folder/$1.key" --change "$folder/change" --out "$folder/$1.text"; }

"$hie" authority init --dir "$region" --name Chartered >/dev/null 2>&1
for who in ines omar stranger; do
    "$hie" authority officer key --out "$folder/$who.key" >"$folder/$who.public" 2>/dev/null
done
officer() { "$hie" authority officer "$1" --dir "$region" "${@:2}" 2>/dev/null; }
officer add "Ines=$(cat "$folder/ines.public")" "Omar=$(cat "$folder/omar.public")" --approvals 2 >/dev/null
officer list | grep -q '2 of 2 approve' || fail "the officers are not there"
check "the first two officers are in"
officer add "Third=$(cat "$folder/stranger.public")" >"$folder/said"
grep -q 'waits for officers' "$folder/said" || fail "a third officer came in alone"
change=$(sed 's/Change \([0-9]*\) .*/\1/' "$folder/said")
check "a third officer waits for the two"
office pending --export "$change" --out "$folder/change"
sign stranger 2>/dev/null
if office approve --approval "$folder/stranger.text" >/dev/null; then fail "a stranger's approval counts"; fi
check "a stranger's approval is refused"
sign ines 2>"$folder/shown"
grep -q 'officers: 2 of Ines, Omar, Third' "$folder/shown" || fail "the officer does not see the change"
check "an officer sees what changes before signing"
office approve --approval "$folder/ines.text" >/dev/null
office approve --approval "$folder/ines.text" >/dev/null
office pending | grep -q '1 of 2 approvals' || fail "one officer counted twice"
check "one officer counts once"
sign omar 2>/dev/null
office approve --approval "$folder/omar.text" | grep -q 'In force' || fail "two approvals do not suffice"
officer list | grep -q '2 of 3 approve' || fail "the change is not in force"
check "with the second approval the change is in force"
if office approve --approval "$folder/omar.text" >/dev/null; then fail "an approval counts twice"; fi
check "an approval is used once"
echo "all checks passed"
