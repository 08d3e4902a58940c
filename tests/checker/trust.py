"""Signed things, registries, claims and records: SPEC.md sections 2, 3, 8 and 11."""

import hashlib

import cbor
from crypto import ed25519_sign, ed25519_verify

DOMAINS = {"registry": "hie registry v1", "record": "hie index record v1", "claim": "hie claim v1", "receipt": "hie audit receipt v1"}
DOMAINS |= {"digest": "hie index digest v1", "approval": "hie charter v1", "token-report": "hie token report v1"}
SPKI = bytes.fromhex("302a300506032b6570032100")


class No(Exception):
    """Why a thing is not taken."""


def to_sign(protected, domain, payload):
    return cbor.encode(["Signature1", protected, domain.encode("utf-8"), payload])


def sign(seed, node, domain, payload):
    protected = cbor.encode({1: -8, 4: node})
    return cbor.encode([protected, cbor.Map([]), payload, ed25519_sign(seed, to_sign(protected, domain, payload))])


def verify(rules, rule, data, limit, find):
    """The signer's key id and the payload of a signed thing; `find` gives the public key of a node."""
    if len(data) > limit:
        raise No("size")
    try:
        protected, _, payload, signature = rules.frame("signed-" + rule, data)
    except cbor.Refused as fault:
        raise No("frame") from fault
    return _verified(protected, payload, signature, DOMAINS[rule], find)


def _verified(protected, payload, signature, domain, find):
    node = cbor.decode(protected).get(4)
    public = find(node)
    if public is None or not ed25519_verify(public, to_sign(protected, domain, payload), signature):
        raise No("signature")
    return node, payload


def envelope(data, domain, public):
    """The payload of a signed thing of any domain."""
    try:
        protected, _, payload, signature = cbor.decode(data)
        return _verified(protected, payload, signature, domain, lambda _: public)[1]
    except (cbor.Refused, ValueError, KeyError, TypeError) as fault:
        raise No("frame") from fault


def quorums(replicas, write_quorum, holders):
    of = min(replicas, holders)
    write = max(of // 2 + 1, min(write_quorum, max(of, 1)))
    return of, write, of - write + 1


def take_registry(rules, data, authority, held):
    """The registry offered to a node, or No with the rule of section 3 that it breaks."""
    _, payload = verify(rules, "registry", data, 1 << 20, lambda _: authority)
    registry = rules.frame("registry", payload)
    members, policy = registry.get("members"), registry.get("policy")
    if len(members) > 1000 or any(len(member.get("nodes")) > 8 or len(member.get("name")) > 200 for member in members):
        raise No("rule 1")
    ids = [member.get("org").encode() for member in members]
    keys = [node.get("key") for member in members for node in member.get("nodes")]
    if any(left >= right for left, right in zip(ids, ids[1:])) or len(set(keys)) != len(keys):
        raise No("rule 2")
    officers = policy.get("officers") if policy.has("officers") else None
    if officers is not None:
        known, need = officers.get("officers"), officers.get("approvals")
        if len(known) > 16 or len({one.get("public") for one in known}) != len(known) or not 1 <= need <= len(known):
            raise No("rule 5")
        if any(len(one.get("name")) > 200 for one in known):
            raise No("rule 5")
    replicas, write = policy.get("replicas"), policy.get("write_quorum")
    if replicas == 0 or write == 0 or write > replicas:
        raise No("rule 3")
    if policy.get("tombstone_life_ms") <= policy.get("record_life_ms"):
        raise No("rule 4")
    if held is not None and registry.get("version") < held:
        raise No("rollback")
    return registry


def charter(rules, registry):
    """SHA-256 of the frame of what a registry grants."""
    fields = ("org", "name", "kind", "nodes", "roles", "phone")
    members = []
    for member in registry.get("members"):
        term = member.get("term") if member.has("term") else 0
        members.append({**{field: member.get(field) for field in fields}, "term": term})
    frame = cbor.encode({"region": registry.get("region"), "root": registry.get("root"), "members": members, "policy": registry.get("policy")})
    rules.frame("charter", frame)
    return hashlib.sha256(frame).digest()


def _fall(standing):
    """How far a member has fallen, and when."""
    if standing == "active":
        return 0, 0
    ((word, at),) = standing.pairs
    return (1 if word == "suspended" else 2), at


def _stands(member, then):
    term = lambda one: one.get("term") if one.has("term") else 0
    if term(then) != term(member):
        return term(then) > term(member)
    (was, at), (is_, after) = _fall(member.get("standing")), _fall(then.get("standing"))
    return is_ > was or (is_ == was and after <= at)


def judge_registry(rules, handed, authority, held, floor):
    """The floor after a registry that is offered to a node with one in force, or No with the reason."""
    offer = rules.frame("handed", handed)
    offered = take_registry(rules, offer.get("signed"), authority, None)
    if offered.get("region") != held.get("region") or offered.get("root") != held.get("root"):
        raise No("region")
    if offered.get("version") < held.get("version"):
        raise No("rollback")
    if offered.get("version") == held.get("version"):
        if cbor.encode(offered) != cbor.encode(held):
            raise No("equivocation")
        return floor
    if offered.get("issued") < held.get("issued"):
        raise No("backdated")
    then = {member.get("org"): member for member in offered.get("members")}
    if not all(_stands(member, then[member.get("org")]) for member in held.get("members") if member.get("org") in then):
        raise No("standing")
    policy, wanted = held.get("policy"), charter(rules, offered)
    if not policy.has("officers") or wanted == charter(rules, held):
        return floor
    officers = policy.get("officers")
    keys = {hashlib.sha256(SPKI + one.get("public")).digest(): one.get("public") for one in officers.get("officers")}
    counted = {}
    for data in offer.get("approvals") if offer.has("approvals") else []:
        try:
            name, payload = verify(rules, "approval", data, 1024, keys.get)
        except No:
            continue
        approval = rules.frame("approval", payload)
        start = approval.get("from")
        fits = approval.get("region") == held.get("region") and approval.get("charter") == wanted
        if fits and floor < start <= offered.get("version"):
            counted[name] = max(start, counted.get(name, 0))
    if len(counted) < officers.get("approvals"):
        raise No("approvals")
    return sorted(counted.values(), reverse=True)[officers.get("approvals") - 1]


def nodes(registry):
    """Node key to organisation, public key and whether the member is active."""
    found = {}
    for member in registry.get("members"):
        for node in member.get("nodes"):
            found[node.get("key")] = (member.get("org"), node.get("public"), member.get("standing") == "active")
    return found


def take_claim(rules, data, registry, channel, audience, now):
    """Judges a claim in the order of section 11."""
    known = nodes(registry)
    try:
        active = lambda node: known[node][1] if node in known and known[node][2] else None
        signer, payload = verify(rules, "claim", data, 8192, active)
    except No as fault:
        raise No("signer" if str(fault) == "signature" else str(fault)) from fault
    claim = rules.frame("claim", payload)
    evidence, emergency = claim.get("evidence"), claim.get("break_glass")
    texts = [claim.get("user"), claim.get("user_name")]
    texts += [evidence.get("encounter")] if evidence else []
    texts += [emergency.get("words")] if emergency else []
    if any(len(text) > 200 for text in texts):
        raise No("text")
    issued, expires = claim.get("issued"), claim.get("expires")
    if issued > expires or expires - issued > 60_000:
        raise No("life")
    if (claim.get("purpose") == "BTG") != (emergency is not None):
        raise No("emergency")
    node = claim.get("node")
    for holds, why in (
        (signer == node, "signer"),
        (node == channel, "channel"),
        (known[node][0] == claim.get("org"), "org"),
        (claim.get("audience") == audience, "audience"),
        (issued <= now + 30_000 and now <= expires + 30_000, "time"),
    ):
        if not holds:
            raise No(why)
    return claim
