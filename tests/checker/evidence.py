"""Merkle proofs, checkpoints, invitations, check words, lane streams: SPEC.md sections 5, 12 and 13."""

import base64
import hashlib

import cbor
from blake3 import blake3
from crypto import ed25519_verify


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(content):
    return sha256(b"\0" + content)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


def _split(size):
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def tree(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = _split(len(leaves))
    return node_hash(tree(leaves[:half]), tree(leaves[half:]))


def included(leaf, index, size, proof, root):
    """RFC 6962 section 2.1.1, from the root down: the path is in the order from the leaf upwards."""

    def climb(index, size, path):
        if size == 1:
            return leaf if not path else None
        if not path:
            return None
        half = _split(size)
        below = climb(index, half, path[:-1]) if index < half else climb(index - half, size - half, path[:-1])
        if below is None:
            return None
        return node_hash(below, path[-1]) if index < half else node_hash(path[-1], below)

    return 0 <= index < size and climb(index, size, proof) == root


def consistent(old, size, old_root, proof, root):
    """RFC 6962 section 2.1.2: SUBPROOF(m, D[n], b) read backwards."""

    def climb(old, size, path, whole):
        """Roots of the old and the new tree of this part."""
        if old == size:
            if whole:
                return (old_root, old_root) if not path else None
            return (path[0], path[0]) if len(path) == 1 else None
        if not path:
            return None
        half = _split(size)
        last = path[-1]
        if old <= half:
            both = climb(old, half, path[:-1], whole)
            return both and (both[0], node_hash(both[1], last))
        both = climb(old - half, size - half, path[:-1], False)
        return both and (node_hash(last, both[0]), node_hash(last, both[1]))

    return 1 <= old <= size and climb(old, size, proof, True) == (old_root, root)


def _verifier_key(text):
    name, key_id, key = text.split("+", 2)
    raw = base64.b64decode(key)
    assert sha256(name.encode() + b"\n" + raw)[:4].hex() == key_id
    return name, bytes.fromhex(key_id), raw[0], raw[1:]


def checkpoint(text, origin, log, witness):
    """Size, root and times of cosignature of a checkpoint, or None."""
    try:
        data = text.encode("utf-8")
        if len(data) > 16384 or any(ord(char) < 32 and char != "\n" for char in text):
            return None
        body, gap, tail = text.rpartition("\n\n")
        if not gap or not tail.endswith("\n"):
            return None
        body += "\n"
        lines = body.split("\n")
        if len(lines) != 4 or lines[0] != origin or lines[1] != str(int(lines[1])):
            return None
        root = base64.b64decode(lines[2], validate=True)
        signed, times = False, []
        signatures = tail[:-1].split("\n")
        if len(signatures) > 32 or len(root) != 32:
            return None
        for line in signatures:
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded, validate=True)
            if dash != "—" or len(raw) < 5:
                return None
            for known, key_id, kind, public in (_verifier_key(log), _verifier_key(witness)):
                if name != known or raw[:4] != key_id:
                    continue
                if kind == 1:
                    if not ed25519_verify(public, body.encode(), raw[4:]):
                        return None
                    signed = True
                else:
                    time = int.from_bytes(raw[4:12], "big")
                    message = f"cosignature/v1\ntime {time}\n{body}"
                    if not ed25519_verify(public, message.encode(), raw[12:]):
                        return None
                    times.append(time)
        return (int(lines[1]), root, times) if signed else None
    except ValueError:
        return None


ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DROPPED = set("-\u00ad\u2212\u200b\ufeff") | {chr(code) for code in range(0x2010, 0x2016)}


def invitation(text):
    """The parts of an invitation, or None."""
    if len(text.encode("utf-8")) > 4096:
        return None
    bare = "".join(char for char in text if char not in DROPPED and not char.isspace()).upper()
    if not bare.startswith("HIEINV1"):
        return None
    number, count = 0, 0
    for char in bare[7:].replace("O", "0").replace("I", "1").replace("L", "1"):
        if char not in ALPHABET:
            return None
        number, count = number << 5 | ALPHABET.index(char), count + 5
    left = count % 8
    if left >= 5 or number & (1 << left) - 1:
        return None
    content = (number >> left).to_bytes(count // 8, "big")
    payload, sum_ = content[:-5], content[-5:]
    if len(content) < 5 or sha256(b"hie invitation v1" + payload)[:5] != sum_ or len(payload) < 56:
        return None
    parts, rest = [payload[:32], payload[32:48], int.from_bytes(payload[48:56], "big")], payload[56:]
    for _ in range(4):
        if not rest or len(rest) < 1 + rest[0]:
            return None
        parts.append(rest[1 : 1 + rest[0]].decode("utf-8"))
        rest = rest[1 + rest[0] :]
    return None if rest else parts


def write_invitation(root, secret, expires, texts):
    payload = root + secret + expires.to_bytes(8, "big") + b"".join(bytes([len(text.encode())]) + text.encode() for text in texts)
    content = payload + sha256(b"hie invitation v1" + payload)[:5]
    bits = "".join(f"{byte:08b}" for byte in content)
    bits += "0" * (-len(bits) % 5)
    chars = "".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))
    return "hie-inv1-" + "-".join(chars[at : at + 4] for at in range(0, len(chars), 4))


def check_words(fingerprint, words):
    stretched = hashlib.pbkdf2_hmac("sha256", fingerprint, b"hie check words v1", 65536, 8)
    return [words[int.from_bytes(stretched[at : at + 2], "big") % 1024] for at in range(0, 8, 2)]


BODY_MAX = {1: 1024, 2: 8 << 20, 3: 256 << 10, 4: 0, 5: 1024}


class Broken(Exception):
    """The stream breaks a rule of the lane."""


def lane_frames(data):
    found, at = [], 0
    while at < len(data):
        if len(data) - at < 5:
            raise Broken("cut in a head")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4]
        if kind not in BODY_MAX or length > BODY_MAX[kind]:
            raise Broken("head")
        if len(data) - at - 5 < length:
            raise Broken("cut in a body")
        found.append((kind, data[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def lane(rules, asker, custodian):
    """`whole` or `refused`; Broken when the answer does not follow the ask."""
    try:
        (kind, body), *more = lane_frames(asker)
        ask = rules.frame("lane-ask", body)
        if kind != 1 or more:
            raise Broken("no single ask")
        return _answer(rules, ask, lane_frames(custodian))
    except cbor.Refused as fault:
        raise Broken(str(fault)) from fault


def _answer(rules, ask, frames):
    item, many = ask.get("item"), False
    if isinstance(item, cbor.Map) and item.has("instances-from"):
        many, item = True, cbor.Map([("instance", item.get("instances-from"))])
    frames, offset = list(frames), ask.get("from")
    while True:
        if not frames:
            raise Broken("cut before the end")
        kind, body = frames.pop(0)
        if kind == 5:
            rules.frame("lane-refused", body)
            if frames:
                raise Broken("behind the end")
            return "refused"
        if kind == 4 and many:
            break
        if kind != 2:
            raise Broken("no header")
        header = rules.frame("lane-header", body)
        manifest = header.get("manifest")
        asked = header.get("item") == item and header.get("from") == offset
        if not asked:
            raise Broken("not what was asked")
        content = b""
        while frames and frames[0][0] == 3:
            content += frames.pop(0)[1]
        if frames and frames[0][0] == 5:
            continue
        if not frames or frames.pop(0)[0] != 4 or len(content) != header.get("size") - offset:
            raise Broken("not as long as announced")
        hashed = cbor.encode(manifest) if manifest else content
        if offset == 0 and sha256(hashed) != header.get("hash"):
            raise Broken("another hash")
        if offset == 0 and manifest is None and header.has("transfer") and blake3(content) != header.get("transfer"):
            raise Broken("another transfer hash")
        if not many:
            break
        item, offset = cbor.Map([("instance", item.get("instance") + 1)]), 0
    if frames:
        raise Broken("behind the end")
    return "whole"
