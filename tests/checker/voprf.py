"""VOPRF(ristretto255, SHA-512) of RFC 9497 with a shared key, and derived keys: SPEC.md sections 7.3 and 7.4."""

import hashlib

from crypto import BASE, IDENTITY, L, add, hkdf_sha512, mul, ristretto_decode, ristretto_encode, ristretto_from_uniform

CONTEXT = b"OPRFV1-" + b"\x01" + b"-ristretto255-SHA512"


def two(number):
    return number.to_bytes(2, "big")


def expand(message, dst):
    dst += bytes([len(dst)])
    first = hashlib.sha512(bytes(128) + message + two(64) + b"\0" + dst).digest()
    return hashlib.sha512(first + b"\x01" + dst).digest()


def hash_to_group(text):
    return ristretto_from_uniform(expand(text, b"HashToGroup-" + CONTEXT))


def hash_to_scalar(text):
    return int.from_bytes(expand(text, b"HashToScalar-" + CONTEXT), "little") % L


def point(data):
    """A canonical point that is not the identity, or None."""
    return None if data == bytes(32) else ristretto_decode(data)


def scalar(data):
    number = int.from_bytes(data, "little")
    return number if number < L else None


def weights(public, blinded, evaluated):
    dst = b"Seed-" + CONTEXT
    seed = hashlib.sha512(two(32) + public + two(len(dst)) + dst).digest()
    return [
        hash_to_scalar(two(64) + seed + two(at) + two(32) + asked + two(32) + answer + b"Composite")
        for at, (asked, answer) in enumerate(zip(blinded, evaluated))
    ]


def total(factors, points):
    result = IDENTITY
    for factor, one in zip(factors, points):
        result = add(result, mul(factor, one))
    return result


def challenge(public, *points):
    text = two(32) + public
    for one in points:
        text += two(32) + ristretto_encode(one)
    return hash_to_scalar(text + b"Challenge")


def prove(secret, nonce, public, blinded, evaluated):
    m = total(weights(public, blinded, evaluated), [ristretto_decode(asked) for asked in blinded])
    c = challenge(public, m, mul(secret, m), mul(nonce, BASE), mul(nonce, m))
    return c.to_bytes(32, "little") + ((nonce - c * secret) % L).to_bytes(32, "little")


def holds(public, blinded, evaluated, proof):
    """Whether an authority's answer is its share times what was asked."""
    if len(blinded) != len(evaluated) or len(proof) != 64:
        return False
    c, s = scalar(proof[:32]), scalar(proof[32:])
    asked, answers, key = [point(one) for one in blinded], [point(one) for one in evaluated], point(public)
    if c is None or s is None or key is None or None in asked or None in answers:
        return False
    factors = weights(public, blinded, evaluated)
    m, z = total(factors, asked), total(factors, answers)
    return challenge(public, m, z, add(mul(s, BASE), mul(c, key)), add(mul(s, m), mul(c, z))) == c


def combine(answers):
    """Lagrange interpolation at zero of (index, point)."""
    result = IDENTITY
    for index, one in answers:
        factor = 1
        for other, _ in answers:
            if other != index:
                factor = factor * other * pow(other - index, -1, L) % L
        result = add(result, mul(factor, one))
    return result


def finalise(text, unblinded):
    return hashlib.sha512(two(len(text)) + text + two(32) + ristretto_encode(unblinded) + b"Finalize").digest()


def derived(secret, label):
    return hkdf_sha512(secret, label.encode(), 32)
