#!/usr/bin/env python3
"""Checks every vector of protocol/vectors against SPEC.md: written from the specification alone, standard library only.

The CDDL is read out of SPEC.md. A vector file without a check here, a field that no check reads, a rule that no vector
uses, and a check that does not notice a flipped byte are all failures.
"""

import json
import sys
from pathlib import Path

import cbor
import cddl
import evidence
import tokens
import trust
import voprf
from crypto import BASE, L, aead_open, aead_seal, ed25519_public, mul, ristretto_encode

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "protocol" / "vectors"


class Wrong(Exception):
    """A vector does not hold."""


def need(holds, what):
    if not holds:
        raise Wrong(what)


class Case:
    """A case that notes which of its fields were read."""

    def __init__(self, fields):
        self.fields, self.read = fields, {"name"}

    def __getitem__(self, key):
        self.read.add(key)
        return self.fields[key]

    def has(self, key):
        return key in self.fields

    def hex(self, key):
        return bytes.fromhex(self[key])

    def hexes(self, key):
        return [bytes.fromhex(text) for text in self[key]]

    def outcome(self, positive):
        """Whether the case is expected to hold."""
        need(self["outcome"] in (positive, "refused"), f"the outcome is neither {positive} nor refused")
        return self["outcome"] == positive


class Checker:
    """One method for each file: `about`, `cases`, and whatever else the file has."""

    def __init__(self):
        self.rules = cddl.Rules((ROOT / "SPEC.md").read_text("utf-8"))
        tables = json.loads((VECTORS / "norm-1.json").read_text("utf-8"))
        self.profile = tokens.Profile(tables)
        self.words = json.loads((VECTORS / "words.json").read_text("utf-8"))["list"]

    # Section 1: frames

    FRAMES = (("request ", "request"), ("response ", "response"), ("lane ask", "lane-ask"), ("lane header", "lane-header"))
    FRAMES += (("lane refused", "lane-refused"), ("sealed pointer", "pointer-secret"), ("sealed locator", "locator-secret"))
    FRAMES += (("signed claim", "signed-claim"), ("signed record", "signed-record"), ("signed receipt", "signed-receipt"))
    FRAMES += (("signed registry", "signed-registry"), ("signed digest", "signed-digest"), ("signed approval", "signed-approval"))
    FRAMES += (("approval", "approval"), ("signed token report", "signed-token-report"), ("token orders", "token-orders"))

    def unplain(self, value):
        if isinstance(value, dict):
            if set(value) == {"hex"}:
                return bytes.fromhex(value["hex"])
            return {key: self.unplain(item) for key, item in value.items()}
        return [self.unplain(item) for item in value] if isinstance(value, list) else value

    def frame(self, case):
        rule = next((rule for prefix, rule in self.FRAMES if case["name"].startswith(prefix)), None)
        need(rule, "no rule of SPEC.md is known for a frame of this name")
        data = case.hex("hex")
        value = self.rules.frame(rule, data)
        need(cbor.encode(value) == data, "written anew, the bytes differ")
        need(cbor.encode(self.unplain(case["value"])) == data, "the value, written by this program, has other bytes")
        if rule.startswith("signed-"):
            trust.verify(self.rules, rule[7:], data, 1 << 20, ed25519_public)

    def refused(self, case):
        try:
            self.rules.frame(case["rule"], case.hex("hex"))
        except cbor.Refused as fault:
            need(str(fault) == case["why"], f"refused for {fault}")
            return
        raise Wrong("it was taken")

    def enrol(self, case):
        need(case["rule"] in ("enrol-request", "enrol-answer"), "another rule")
        self.rules.frame(case["rule"], case.hex("hex"))

    # Sections 2, 3, 11: trust

    def signatures(self, case):
        domain, public, signed = case["domain"], case.hex("public"), case.hex("signed")
        if not case.outcome("verified"):
            try:
                trust.envelope(signed, domain, public)
            except trust.No:
                return
            raise Wrong("it was taken")
        rule = case["rule"].removeprefix("signed-")
        need(trust.DOMAINS[rule] == domain, "another domain")
        need(ed25519_public(case.hex("seed")) == public, "another public key")
        need(trust.sign(case.hex("seed"), case.hex("node"), domain, case.hex("payload")) == signed, "another signature")
        self.rules.frame(case["rule"], signed)
        need(trust.verify(self.rules, rule, signed, 1 << 20, lambda _: public) == (case.hex("node"), case.hex("payload")), "another payload")

    def registry(self, case):
        try:
            trust.take_registry(self.rules, case.hex("signed"), case.hex("authority"), case["held"])
        except trust.No as fault:
            need(not case.outcome("taken") and case["why"] == str(fault), f"refused for {fault}")
            return
        need(case.outcome("taken") and case["why"] == "", "it was taken")

    def registry_quorums(self, row):
        replicas, write, holders, *expected = row
        need(list(trust.quorums(replicas, write, holders)) == expected, "other quorums")

    def claims(self, case):
        registry = self.rules.frame("registry", case.hex("registry"))
        try:
            trust.take_claim(self.rules, case.hex("signed"), registry, case.hex("channel"), case["audience"], case["now"])
        except trust.No as fault:
            need(not case.outcome("taken") and case["why"] == str(fault), f"refused for {fault}")
            return
        need(case.outcome("taken") and case["why"] == "", "it was taken")

    def charter(self, case):
        held, handed = self.rules.frame("registry", case.hex("held")), case.hex("handed")
        try:
            floor = trust.judge_registry(self.rules, handed, case.hex("authority"), held, case["floor"])
        except trust.No as fault:
            need(not case.outcome("taken") and case["why"] == str(fault), f"refused for {fault}")
            floor = case["floor"]
        else:
            need(case.outcome("taken") and case["why"] == "", "it was taken")
        need(floor == case["floor_after"], f"the floor is {floor}")
        _, payload = trust.verify(self.rules, "registry", cbor.decode(handed).get("signed"), 1 << 20, lambda _: case.hex("authority"))
        need(trust.charter(self.rules, cbor.decode(payload)) == case.hex("charter"), "another charter")

    def charter_of(self, row):
        need(trust.charter(self.rules, self.rules.frame("registry", bytes.fromhex(row[0]))).hex() == row[1], "another charter")

    # Section 5: joining

    def invitation(self, case):
        if case["outcome"] == "written":
            parts = evidence.invitation(case["written"])
            need(parts and evidence.invitation(case["file"]) == parts, "the two forms differ")
            need(evidence.write_invitation(*parts[:3], parts[3:]) == case["written"], "written anew, the text differs")
            return
        parts = evidence.invitation(case["text"])
        if not case.outcome("read"):
            need(parts is None, "it was read")
            return
        names = ("region", "address", "organisation", "organisation_name")
        expected = [case.hex("root_fingerprint"), case.hex("secret"), case["expires_at_s"]] + [case[name] for name in names]
        need(parts == expected, "other parts")

    def check_words(self, case):
        need(evidence.check_words(case.hex("fingerprint"), self.words) == case["words"], "other words")

    def words_list(self, row):
        need(row.isascii() and row.islower() and self.words.count(row) == 1 and self.words == sorted(self.words), "the list is not in order")
        need(len(self.words) == 1024, "not 1024 words")

    # Section 7: tokens

    def norm_table(self, row):
        need(row and json.dumps(row).upper() == json.dumps(row), "an entry that is not upper case")

    def tokens(self, case):
        person = self.rules.frame("demographics", case.hex("demographics"))
        need(self.profile.tokens(person, case["epoch"], 64) == case["published"], "other tokens published")
        need(self.profile.tokens(person, case["epoch"], 48) == case["asked"], "other tokens asked")

    def folded(self, row):
        need(tokens.fold(row[0]) == row[1], "folded differently")

    def sounds(self, row):
        need(tokens.sound(row[0]) == row[1], "another sound")

    def oprf(self, case):
        blinded = case.hexes("blinded")
        if not case.outcome("evaluated"):
            need(case["index"] == 1, "another index")
            need(not voprf.holds(case.hex("point"), blinded, case.hexes("elements"), case.hex("proof")), "the answer was taken")
            return
        threshold, taken = case["threshold"], case["taken"]
        polynomial = [voprf.scalar(data) for data in case.hexes("coefficients")]
        blinds = [voprf.scalar(data) for data in case.hexes("blinds")]
        inputs = [text.encode() for text in case["inputs"]]
        hashed = [voprf.hash_to_group(text) for text in inputs]
        need(len(polynomial) == threshold == len(taken) and len(blinds) == len(inputs) == len(blinded), "other numbers")
        need(ristretto_encode(mul(polynomial[0], BASE)) == case.hex("public"), "another public key")
        need([ristretto_encode(mul(r, one)) for r, one in zip(blinds, hashed)] == blinded, "blinded differently")
        answers = {}
        for fields in case["authorities"]:
            authority = Case(fields)
            answers[authority["index"]] = self.authority(authority, threshold, polynomial, blinded)
            need(authority.read - {"name"} == set(fields), "a field that is not checked")
        outputs = []
        for at, (text, r) in enumerate(zip(inputs, blinds)):
            combined = voprf.combine([(index, voprf.point(answers[index][at])) for index in taken])
            outputs.append(voprf.finalise(text, mul(pow(r, -1, L), combined)))
        need(outputs == case.hexes("outputs"), "other outputs")
        need(outputs == [voprf.finalise(text, mul(polynomial[0], one)) for text, one in zip(inputs, hashed)], "not the single key's output")

    def authority(self, case, threshold, polynomial, blinded):
        index, elements = case["index"], case.hexes("elements")
        share = sum(factor * index**power for power, factor in enumerate(polynomial)) % L
        encoded = b"\x01" + index.to_bytes(2, "big") + threshold.to_bytes(2, "big") + share.to_bytes(32, "little")
        need(case.hex("share") == encoded, "another share")
        need(ristretto_encode(mul(share, BASE)) == case.hex("point"), "another point")
        need([ristretto_encode(mul(share, voprf.point(asked))) for asked in blinded] == elements, "evaluated differently")
        proof = voprf.prove(share, voprf.scalar(case.hex("nonce")), case.hex("point"), blinded, elements)
        need(proof == case.hex("proof") and voprf.holds(case.hex("point"), blinded, elements, proof), "another proof")
        return elements

    def reshare(self, case):
        plan, seat = case.hex("plan"), case["seat"]
        _, resharing = cbor.decode(plan)
        self.rules.check("resharing", resharing)
        threshold, dealers = resharing.get("threshold"), resharing.get("dealers")
        if not case.outcome("taken"):
            need(not voprf.part_fits(case.hexes("commitments"), case.hex("value"), threshold, seat, case.hex("point")), "the part was taken")
            return
        new, key, indices = 0, 0, []
        for encoded, part in zip(case.hexes("dealers"), case["parts"]):
            index, share = int.from_bytes(encoded[1:3], "big"), voprf.scalar(encoded[5:])
            need(encoded[0] == 1 and int.from_bytes(encoded[3:5], "big") == len(dealers), "a share of another form")
            expected = voprf.dealt(share, index, threshold, plan, seat)
            need(([bytes.fromhex(text) for text in part["commitments"]], bytes.fromhex(part["value"])) == expected, "dealt differently")
            need(voprf.part_fits(*expected, threshold, seat, ristretto_encode(mul(share, BASE))), "the part does not fit")
            factor = voprf.lagrange(index, dealers)
            new, key, indices = new + factor * voprf.scalar(expected[1]), key + factor * share, indices + [index]
        need(indices == dealers and ristretto_encode(mul(key % L, BASE)) == case.hex("public"), "another key")
        encoded = b"\x01" + seat.to_bytes(2, "big") + threshold.to_bytes(2, "big") + (new % L).to_bytes(32, "little")
        need(encoded == case.hex("share"), "another share")

    def derive(self, case):
        for field, secret, label in (
            ("index_key", "prf", "hie index v1"),
            ("seal_key", "prf", "hie seal v1"),
            ("locator_key", "record_key", "hie locator v1"),
            ("locator_seal_key", "record_key", "hie locator seal v1"),
        ):
            need(voprf.derived(case.hex(secret), label) == case.hex(field), f"another {field}")

    # Sections 8, 9: the index

    def records(self, case):
        key, handle, seal_key = case.hex("index_key"), case.hex("handle"), case.hex("seal_key")
        place, box = b"hie record v1" + key + handle, case.hex("sealed")
        plain = aead_open(seal_key, place, box)
        secret = None
        if plain is not None and len(plain) % 64 == 0:
            cut = plain.rstrip(b"\0")
            secret = cut[:-1] if cut[-1:] == b"\x80" and len(plain) - len(cut) < 64 else None
        if not case.outcome("opened"):
            need(secret is None, "it was opened")
            return
        need(secret == case.hex("secret"), "another secret")
        self.rules.frame(case["rule"], secret)
        padded = secret + b"\x80" + bytes(-(len(secret) + 1) % 64)
        need(aead_seal(seal_key, case.hex("nonce"), place, padded) == box, "sealed differently")
        (kind, source), = case["from"].items()
        labels = ("hie index v1", "hie seal v1") if kind == "output" else ("hie locator v1", "hie locator seal v1")
        need([voprf.derived(bytes.fromhex(source), label) for label in labels] == [key, seal_key], "other keys")
        public = ed25519_public(bytes([1]) * 32)
        _, payload = trust.verify(self.rules, "record", case.hex("signed"), 4096, lambda _: public)
        record = self.rules.frame("index-record", payload)
        need(record.get("key") == key and record.get("handle") == handle, "another place in the record")
        need(record.get("content") == cbor.Map([("live", box)]), "another content in the record")

    def digest(self, case):
        total = 0
        for key, handle, sequence in case["versions"]:
            place = bytes.fromhex(key) + bytes.fromhex(handle) + sequence.to_bytes(8, "big")
            total += int.from_bytes(evidence.sha256(b"hie record version v1" + place), "big")
        need(len(case["versions"]) == case["count"], "another count")
        need((total % 2**256).to_bytes(32, "big") == case.hex("hash"), "another hash")

    def placement(self, case):
        key, weights = case.hex("key"), {}
        for org, weight in case["weights"].items():
            weights[org] = evidence.sha256(b"hie placement v1" + key + org.encode())[:8]
            need(weights[org].hex() == weight, f"another weight of {org}")
        order = sorted(weights, key=lambda org: (-int.from_bytes(weights[org], "big"), org.encode()))
        need(order[: case["replicas"]] == case["placed"], "placed elsewhere")

    # Sections 12, 13: lane and evidence

    def lane(self, case):
        try:
            outcome = evidence.lane(self.rules, case.hex("asker"), case.hex("custodian"))
        except evidence.Broken:
            outcome = "broken"
        need(outcome == case["outcome"], f"it is {outcome}")

    def merkle(self, case):
        if case["kind"] == "inclusion":
            holds = evidence.included(case.hex("leaf"), case["index"], case["size"], case.hexes("proof"), case.hex("root"))
        else:
            need(case["kind"] == "consistency", "another kind")
            holds = evidence.consistent(case["old"], case["size"], case.hex("old_root"), case.hexes("proof"), case.hex("root"))
        need(bool(holds) == case.outcome("holds"), f"it is {holds}")

    def checkpoint(self, case):
        found = evidence.checkpoint(case["text"], case["origin"], case["log"], case["witness"])
        if not case.outcome("verified"):
            need(found is None and case["size"] is None and case["root"] is None and case["cosigned_at"] == [], "it was taken")
            return
        need(found == (case["size"], case.hex("root"), case["cosigned_at"]), f"it says {found}")


def merkle_roots(document, checker):
    leaves = [bytes.fromhex(text) for text in document["leaves"]]
    for size, root in enumerate(document["roots"]):
        need(evidence.tree(leaves[:size]).hex() == root, f"another root of {size} leaves")
    return len(document["roots"])


# File: the method of its cases, and of every other list in it by its name.
FILES = {
    "frames.json": ("frame", {}),
    "refused.json": ("refused", {}),
    "enrol.json": ("enrol", {}),
    "signatures.json": ("signatures", {}),
    "registry.json": ("registry", {"quorums": "registry_quorums"}),
    "charter.json": ("charter", {"charter of version 1": "charter_of"}),
    "claims.json": ("claims", {}),
    "invitation.json": ("invitation", {}),
    "words.json": ("check_words", {"list": "words_list"}),
    "norm-1.json": (None, dict.fromkeys(("nicknames", "suffixes", "titles", "particles", "placeholders", "street words", "unit words"), "norm_table")),
    "tokens.json": ("tokens", {"folded": "folded", "sounds": "sounds"}),
    "oprf.json": ("oprf", {}),
    "reshare.json": ("reshare", {}),
    "derive.json": ("derive", {}),
    "records.json": ("records", {}),
    "placement.json": ("placement", {}),
    "digest.json": ("digest", {}),
    "lane.json": ("lane", {}),
    "merkle.json": ("merkle", {"leaves": None, "roots": None}),
    "checkpoint.json": ("checkpoint", {}),
}
# Read together with another file.
BESIDE = {"values.json": "frames.json"}


def load(name):
    document = json.loads((VECTORS / name).read_text("utf-8"))
    if name == "frames.json":
        values = json.loads((VECTORS / "values.json").read_text("utf-8"))
        need(set(values) == set(document), "frames.json and values.json name other frames")
        document = {"about": "", "cases": [{"name": key, "hex": text, "value": values[key]} for key, text in document.items()]}
    return document


def run(checker, method, fields):
    """Checks one case: Wrong with its reason when it does not hold, whatever way it fails."""
    case = Case(fields)
    try:
        getattr(checker, method)(case)
    except Wrong:
        raise
    except Exception as fault:  # Whatever a changed case breaks, it is a case that does not hold.
        raise Wrong(f"{type(fault).__name__}: {fault}") from fault
    unread = set(fields) - case.read
    need(not unread, f"not checked: {', '.join(sorted(unread))}")


def flipped(text):
    """Hexadecimal text with one bit of its middle byte turned."""
    at = len(text) // 4 * 2
    return text[:at] + f"{int(text[at:at + 2], 16) ^ 1:02x}" + text[at + 2 :]


def is_hex(value):
    return isinstance(value, str) and len(value) >= 2 and len(value) % 2 == 0 and set(value) <= set("0123456789abcdef")


def mutants(fields):
    """Copies of a positive case with one thing changed in each, which no check may take."""
    for key, value in fields.items():
        if key == "name":
            continue
        if is_hex(value):
            yield key, {**fields, key: flipped(value)}
            yield key + " cut", {**fields, key: value[:-2]}
        elif isinstance(value, list) and value and is_hex(value[0]):
            yield key, {**fields, key: [flipped(value[0])] + value[1:]}
            yield key + " cut", {**fields, key: value[:-1]}
        elif isinstance(value, list) and value and isinstance(value[0], str):
            yield key, {**fields, key: value[1:]}
        elif key in ("text", "written"):
            yield key, {**fields, key: value[: len(value) // 2] + value[len(value) // 2 + 1 :]}
    if "outcome" in fields:
        yield "outcome", {**fields, "outcome": "refused"}


# What a changed field does not make false: names, and what a case merely carries along.
FREE = {("enrol.json", "hex"), ("claims.json", "registry"), ("lane.json", "asker"), ("tokens.json", "demographics"), ("charter.json", "held")}
# The word of a case that holds, in files that also have cases to refuse.
POSITIVE = {
    "signatures.json": "verified",
    "registry.json": "taken",
    "charter.json": "taken",
    "reshare.json": "taken",
    "claims.json": "taken",
    "invitation.json": "read",
    "oprf.json": "evaluated",
    "records.json": "opened",
    "lane.json": "whole",
    "merkle.json": "holds",
    "checkpoint.json": "verified",
}
MUTANTS_PER_FILE = 60


def self_test(checker, name, method, cases):
    """Every kind of check must notice changed cases; counts those it noticed."""
    noticed = 0
    for fields in cases:
        if noticed >= MUTANTS_PER_FILE:
            break
        if name == "refused.json":
            changes = [("why", {**fields, "why": "nothing"})]
        elif "outcome" in fields and fields["outcome"] not in (POSITIVE[name], "written"):
            # A case to refuse that is said to hold must not pass either.
            changes = [("outcome", {**fields, "outcome": POSITIVE[name]})]
        else:
            changes = mutants(fields)
        for field, mutant in changes:
            if (name, field) in FREE:
                continue
            try:
                run(checker, method, mutant)
            except Wrong:
                noticed += 1
                continue
            raise Wrong(f"{fields.get('name')}: a change of {field} goes unnoticed")
    need(noticed > 0 or not cases, "no changed case was refused")
    return noticed


def main():
    faults, checked, changed = [], 0, 0
    checker = Checker()
    present = {path.name for path in VECTORS.iterdir()}
    for name in sorted(present ^ (set(FILES) | set(BESIDE))):
        faults.append(f"{name}: {'no check knows this file' if name in present else 'the file is missing'}")
    for name, (method, lists) in FILES.items():
        if name not in present:
            continue
        count, before = 0, len(faults)
        try:
            document = load(name)
            for key in sorted(set(document) - {"about", "cases"} - set(lists)):
                raise Wrong(f"no check knows the part {key}")
            cases = document.get("cases", [])
            for fields in cases:
                try:
                    run(checker, method, fields)
                    count += 1
                except Wrong as fault:
                    faults.append(f"{name}: {fields.get('name')}: {fault}")
            for key, row_method in lists.items():
                rows = document[key]
                for row in rows.items() if isinstance(rows, dict) else rows:
                    if row_method:
                        getattr(checker, row_method)(row)
                        count += 1
            if name == "merkle.json":
                count += merkle_roots(document, checker)
            kept = set(checker.rules.used)
            noticed = self_test(checker, name, method, cases) if len(faults) == before else 0
            checker.rules.used = kept
        except Wrong as fault:
            faults.append(f"{name}: {fault}")
            noticed = 0
        print(f"{count:6} checked {noticed:6} changed and refused   {name}")
        checked, changed = checked + count, changed + noticed
    unused = sorted(set(checker.rules.rules) - checker.rules.used)
    for rule in unused:
        faults.append(f"SPEC.md: no vector uses the rule {rule}")
    print(f"{checked:6} checked {changed:6} changed and refused   {len(checker.rules.rules)} rules of CDDL")
    for fault in faults:
        print("FALSE", fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
