"""Rules about SSH keys: deploy keys, the host keys of git servers, and administrators' keys."""

from __future__ import annotations

import base64
import binascii
import re

from ..report import Fault, show

EXAMPLE_KEY = 'key: "{{ vault_shop_deploy_key }}"  # in vault.yml: vault_shop_deploy_key: |, and the key\'s lines below'
EXAMPLE_ADMIN = "admin_users: [{name: ada, keys: [\"{{ lookup('file', '~/.ssh/id_ed25519.pub') }}\"]}]"
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def deploy_key(value: str) -> Fault | None:
    """Check a private SSH key. The message shows no part of it."""
    text = value.strip()
    match = re.fullmatch(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s(.*\s)-----END \1PRIVATE KEY-----", text, re.DOTALL)
    problem = ""
    if not text:
        return None
    if text.startswith(("ssh-", "ecdsa-", "sk-")):
        problem = "This is the public half of a key, which belongs on the git server. Use the private half."
    elif "\n" not in text and text.startswith(("~", "/", ".")):
        problem = "This is the name of a file. Write the key, or read the file with a lookup."
    elif not match:
        problem = "Not a private SSH key: include all lines from -----BEGIN ... PRIVATE KEY----- to the one with END."
    elif "\n" not in match[2].strip() and len(match[2]) > 100:
        problem = "The lines are joined into one. In YAML, a value of several lines starts with | after the colon."
    elif _is_encrypted(text, match[2]):
        problem = (
            "The key has a passphrase, which the host cannot type when it reads the repository. Create one without "
            "(ssh-keygen -t ed25519 -N '' -f deploy_key), and keep it in ansible-vault."
        )
    return Fault("bad_deploy_key", problem, EXAMPLE_KEY) if problem else None


def _is_encrypted(text: str, body: str) -> bool:
    """Return whether a private key has a passphrase, from PEM's headers or the cipher's name in OpenSSH's own format.

    OpenSSH's PROTOCOL.key describes the format: the magic, then the length and the name of the cipher. The name is
    "none" if there is no passphrase.
    """
    if "ENCRYPTED" in text:
        return True
    try:
        blob = base64.b64decode("".join(body.split()))
    except (binascii.Error, ValueError):
        return False
    magic = b"openssh-key-v1\0"
    return blob.startswith(magic) and not blob[len(magic) :].startswith(b"\0\0\0\4none")


def known_hosts(value: str) -> Fault | None:
    """Check the lines of a known_hosts file: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"."""
    for line in value.strip().splitlines():
        fields = line.split()
        if fields and fields[0] in ("@cert-authority", "@revoked"):
            del fields[0]
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 3 or fields[1] not in _KEY_TYPES or not is_key(fields[1].encode(), fields[2]):
            problem = f"{show(line)} is not a line of known_hosts: the server's name, the key type, and the key."
            return Fault("bad_known_hosts", problem, "known_hosts: |  # below, indented: the output of ssh-keyscan")
    return None


def ssh_key(value: str) -> Fault | None:
    """Check a public SSH key. The message shows no part of it: it may be a private key."""
    if "PRIVATE KEY" in value:
        problem = (
            "This is a private key, which must stay with its owner. Remove it from every file and commit, create a new "
            "pair (ssh-keygen -t ed25519), and use the half whose file ends in .pub."
        )
        return Fault("private_ssh_key", problem, EXAMPLE_ADMIN)
    text = value.strip()
    kind, _space, rest = text.partition(" ")
    problem = ""
    if text.endswith(".pub") or text.startswith(("~", "/")):
        problem = "This is the name of a file. Write the key, or read the file with a lookup."
    elif "\n" in text:
        problem = "This is more than one line. Write one key per entry."
    elif kind not in _KEY_TYPES:
        problem = f"Not a public SSH key, which starts with {_KEY_TYPES[0]}, {_KEY_TYPES[1]} or another key type."
    elif not is_key(kind.encode(), rest.split(" ")[0]):
        problem = "The key is damaged, cut off, or only an example."
    return Fault("bad_ssh_key", problem, EXAMPLE_ADMIN) if problem else None


def is_key(kind: bytes, encoded: str) -> bool:
    """Check the middle part of a public key: length and name of its type (RFC 4253, 6.6), then at least 32 bytes."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return blob.startswith(len(kind).to_bytes(4, "big") + kind) and len(blob) >= 4 + len(kind) + 32
