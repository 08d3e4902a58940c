"""BLAKE3 (the hash alone), from its specification: chunks of 1024 bytes under a binary tree."""

import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF


def _mix(v, a, b, c, d, x, y):
    for word, right, left in ((x, 16, 12), (y, 8, 7)):
        v[a] = v[a] + v[b] + word & MASK
        v[d] = v[d] ^ v[a]
        v[d] = v[d] >> right | v[d] << 32 - right & MASK
        v[c] = v[c] + v[d] & MASK
        v[b] = v[b] ^ v[c]
        v[b] = v[b] >> left | v[b] << 32 - left & MASK


def _compress(chain, block, counter, length, flags):
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(chain) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))):
            _mix(v, a, b, c, d, words[2 * at], words[2 * at + 1])
        for at, (a, b, c, d) in enumerate(((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))):
            _mix(v, a, b, c, d, words[8 + 2 * at], words[9 + 2 * at])
        words = [words[place] for place in PERMUTATION]
    return [v[at] ^ v[at + 8] for at in range(8)]


def _chunk(data, counter, root):
    chain = IV
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    for at, block in enumerate(blocks):
        last = at + 1 == len(blocks)
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if last else 0)
        chain = _compress(chain, block, counter, len(block), flags)
    return chain


def _tree(data, first, root):
    if len(data) <= 1024:
        return _chunk(data, first, root)
    left = 1024
    while left * 2 < len(data):
        left *= 2
    chains = _tree(data[:left], first, 0) + _tree(data[left:], first + left // 1024, 0)
    return _compress(IV, struct.pack("<16I", *chains), 0, 64, PARENT | root)


def blake3(data):
    return struct.pack("<8I", *_tree(data, 0, ROOT))
