"""Whether a signature was made with a key that a phone has accepted.

adb signs the phone's 20 random bytes as if they were a SHA-1 digest: RSASSA-PKCS1-v1_5, RFC 8017 section 8.2. Its
public keys are one line of base64: the number of 32-bit words, a constant of Montgomery's, the modulus and its square
in words of little-endian order, the exponent; then a comment (Android's system/core/libcrypto_utils).
"""

from __future__ import annotations

import base64
import binascii
import struct

_SHA1_HEADER = bytes.fromhex("3021300906052b0e03021a05000414")


def signed_by(public_key: bytes, token: bytes, signature: bytes) -> bool:
    """Whether `signature` of the 20 bytes `token` fits a public key in Android's format; False for a damaged key."""
    try:
        blob = base64.b64decode(public_key.split()[0], validate=True)
        words: int = struct.unpack_from("<I", blob, 0)[0]
        size = 4 * words
        modulus = int.from_bytes(blob[8 : 8 + size], "little")
        (exponent,) = struct.unpack_from("<I", blob, 8 + 2 * size)
    except (IndexError, struct.error, binascii.Error):
        return False
    if modulus == 0 or len(signature) != size:
        return False
    digest = _SHA1_HEADER + token
    padded = b"\x00\x01" + b"\xff" * (size - 3 - len(digest)) + b"\x00" + digest
    opened: int = pow(int.from_bytes(signature, "big"), exponent, modulus)
    return opened.to_bytes(size, "big") == padded
