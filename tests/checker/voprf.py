"""VOPRF(ristretto255, SHA-512) of RFC 9497 with a shared key, and derived keys: SPEC.md sections 7.3 and 7.4."""

import hashlib
import hmac

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
    indices = [index for index, _ in answers]
    return total([lagrange(index, indices) for index in indices], [one for _, one in answers])


def finalise(text, unblinded):
    return hashlib.sha512(two(len(text)) + text + two(32) + ristretto_encode(unblinded) + b"Finalize").digest()


def lagrange(index, indices):
    """The coefficient of an index at zero among all."""
    factor = 1
    for other in indices:
        if other != index:
            factor = factor * other * pow(other - index, -1, L) % L
    return factor


def dealt(share, index, threshold, plan, seat):
    """A dealer's commitments and its value for a seat."""
    polynomial = [share]
    for power in range(1, threshold):
        text = b"hie reshare v1" + two(power) + two(index) + plan
        wide = hmac.new(share.to_bytes(32, "little"), text, hashlib.sha512).digest()
        polynomial.append(int.from_bytes(wide, "little") % L)
    value = sum(factor * seat**power for power, factor in enumerate(polynomial)) % L
    return [ristretto_encode(mul(factor, BASE)) for factor in polynomial], value.to_bytes(32, "little")


def part_fits(commitments, value, threshold, seat, dealer):
    """Whether a part is what its dealer committed to, and begins with its published point."""
    number, points = scalar(value), [point(one) for one in commitments]
    if number is None or None in points or len(points) != threshold or commitments[0] != dealer:
        return False
    powers = [seat**power % L for power in range(threshold)]
    return ristretto_encode(total(powers, points)) == ristretto_encode(mul(number, BASE))


def derived(secret, label):
    return hkdf_sha512(secret, label.encode(), 32)
