"""Ed25519 (RFC 8032), ristretto255 (RFC 9496), ChaCha20-Poly1305 (RFC 8439), HKDF (RFC 5869): slow, plain, of integers."""

import hashlib
import hmac
import struct

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)

# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
IDENTITY = (0, 1, 1, 0)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def double(p):
    a, b, c = p[0] * p[0] % P, p[1] * p[1] % P, 2 * p[2] * p[2] % P
    h = a + b
    e = h - (p[0] + p[1]) ** 2
    g = a - b
    f = c + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def mul(scalar, point):
    table = [IDENTITY, point]
    for _ in range(14):
        table.append(add(table[-1], point))
    result = IDENTITY
    for shift in range(252, -4, -4):
        for _ in range(4):
            result = double(result)
        digit = scalar >> shift & 15
        if digit:
            result = add(result, table[digit])
    return result


def neg(point):
    return (-point[0] % P, point[1], point[2], -point[3] % P)


def _recover(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


_y = 4 * pow(5, P - 2, P) % P
_x = _recover(_y, 0)
BASE = (_x, _y, 1, _x * _y % P)


def _compress(point):
    z = pow(point[2], P - 2, P)
    x, y = point[0] * z % P, point[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decompress(data):
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    x = _recover(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _secret(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def ed25519_public(seed):
    return _compress(mul_any(_secret(seed)[0], BASE))


def mul_any(scalar, point):
    return mul(scalar % L, point) if scalar >= L else mul(scalar, point)


def ed25519_sign(seed, message):
    scalar, prefix = _secret(seed)
    public = ed25519_public(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    point = _compress(mul(r, BASE))
    k = int.from_bytes(hashlib.sha512(point + public + message).digest(), "little") % L
    return point + ((r + k * scalar) % L).to_bytes(32, "little")


def ed25519_verify(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    a, s = _decompress(public), int.from_bytes(signature[32:], "little")
    if a is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    return _compress(add(mul(s, BASE), mul(k, neg(a)))) == signature[:32]


# ristretto255, RFC 9496 section 4.


def _sqrt_ratio(u, v):
    v3 = v * v * v % P
    r = u * v3 * pow(u * v3 * v3 * v, (P - 5) // 8, P) % P
    check = v * r * r % P
    correct, flipped, flipped_i = check == u % P, check == -u % P, check == -u * SQRT_M1 % P
    if flipped or flipped_i:
        r = r * SQRT_M1 % P
    return correct or flipped, P - r if r & 1 else r


def _abs(x):
    x %= P
    return P - x if x & 1 else x


INVSQRT_A_MINUS_D = _sqrt_ratio(1, -1 - D)[1]


def ristretto_decode(data):
    """The point, or None for an encoding that is not canonical."""
    s = int.from_bytes(data, "little")
    if len(data) != 32 or s >= P or s & 1:
        return None
    ss = s * s % P
    u1, u2 = (1 - ss) % P, (1 + ss) % P
    v = (-(D * u1 * u1) - u2 * u2) % P
    square, inverse = _sqrt_ratio(1, v * u2 * u2 % P)
    den_x = inverse * u2 % P
    den_y = inverse * den_x * v % P
    x, y = _abs(2 * s * den_x), u1 * den_y % P
    t = x * y % P
    return None if not square or t & 1 or y == 0 else (x, y, 1, t)


def ristretto_encode(point):
    x, y, z, t = point
    u1, u2 = (z + y) * (z - y) % P, x * y % P
    inverse = _sqrt_ratio(1, u1 * u2 * u2 % P)[1]
    den1, den2 = inverse * u1 % P, inverse * u2 % P
    z_inv = den1 * den2 * t % P
    if t * z_inv % P & 1:
        x, y, den_inv = y * SQRT_M1 % P, x * SQRT_M1 % P, den1 * INVSQRT_A_MINUS_D % P
    else:
        den_inv = den2
    if x * z_inv % P & 1:
        y = -y % P
    return _abs(den_inv * (z - y)).to_bytes(32, "little")


# RFC 9496 section 4.1 names this one of the two roots.
SQRT_AD_MINUS_ONE = 25063068953384623474111414158702152701244531502492656460079210482610430750235
assert (SQRT_AD_MINUS_ONE**2 - (-D - 1)) % P == 0


def _elligator(data):
    r = SQRT_M1 * pow(int.from_bytes(data, "little") & (1 << 255) - 1, 2, P) % P
    u = (r + 1) * (1 - D * D) % P
    v = (-1 - r * D) * (r + D) % P
    square, s = _sqrt_ratio(u, v)
    c = -1 if square else r
    if not square:
        s = -_abs(s * (int.from_bytes(data, "little") & (1 << 255) - 1)) % P
    n = (c * (r - 1) * (D - 1) ** 2 - v) % P
    w0, w1 = 2 * s * v % P, n * SQRT_AD_MINUS_ONE % P
    w2, w3 = (1 - s * s) % P, (1 + s * s) % P
    return (w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P)


def ristretto_from_uniform(data):
    return add(_elligator(data[:32]), _elligator(data[32:64]))


def hkdf_sha512(secret, info, length):
    key = hmac.new(bytes(64), secret, hashlib.sha512).digest()
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha512).digest()
        out, counter = out + block, counter + 1
    return out[:length]


# ChaCha20-Poly1305.


def _quarter(s, a, b, c, d):
    for first, second, third, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[first] = s[first] + s[second] & 0xFFFFFFFF
        mixed = s[third] ^ s[first]
        s[third] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF


def _chacha_block(key, counter, nonce):
    start = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce))
    s = list(start)
    for _ in range(10):
        for column in range(4):
            _quarter(s, column, column + 4, column + 8, column + 12)
        for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            _quarter(s, a, b, c, d)
    return struct.pack("<16I", *(x + y & 0xFFFFFFFF for x, y in zip(s, start)))


def _chacha(key, nonce, data):
    out = bytearray()
    for at in range(0, len(data), 64):
        block = _chacha_block(key, 1 + at // 64, nonce)
        out += bytes(x ^ y for x, y in zip(data[at : at + 64], block))
    return bytes(out)


def _tag(key, nonce, aad, cipher):
    once = _chacha_block(key, 0, nonce)[:32]
    r = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s, total = int.from_bytes(once[16:], "little"), 0
    pad = lambda text: text + bytes(-len(text) % 16)
    message = pad(aad) + pad(cipher) + struct.pack("<QQ", len(aad), len(cipher))
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return (total + s & (1 << 128) - 1).to_bytes(16, "little")


def aead_seal(key, nonce, aad, plain):
    cipher = _chacha(key, nonce, plain)
    return nonce + cipher + _tag(key, nonce, aad, cipher)


def aead_open(key, aad, box):
    """The plaintext, or None."""
    if len(box) < 28 or len(key) != 32:
        return None
    nonce, cipher, tag = box[:12], box[12:-16], box[-16:]
    if not hmac.compare_digest(_tag(key, nonce, aad, cipher), tag):
        return None
    return _chacha(key, nonce, cipher)
