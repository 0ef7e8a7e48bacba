"""Certificates of a test cluster: one CA for servers, clients and aggregation, made with openssl's command."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from testcluster.errors import UnavailableError


class Pki:
    """A folder of keys and certificates. Elliptic curves, so that one takes milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "ca.crt").exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._make_authority()

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def issue_client(self, name: str, user: str, groups: Sequence[str] = ()) -> None:
        """A client certificate: Kubernetes reads the user from CN and the groups from O (X.509 client certs)."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        self._issue(name, subject, "extendedKeyUsage=clientAuth\n")

    def issue_server(self, name: str, alternative_names: Sequence[str]) -> None:
        """A server certificate for names such as `IP:127.0.0.1` and `DNS:localhost`."""
        names = ",".join(alternative_names)
        self._issue(name, f"/CN={name}", f"extendedKeyUsage=serverAuth\nsubjectAltName={names}\n")

    def request(self, name: str, user: str, groups: Sequence[str] = ()) -> bytes:
        """A signing request in PEM for somebody else's CA; the key is NAME.key."""
        self._key(name)
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        openssl("req", "-new", "-key", self[f"{name}.key"], "-subj", subject, "-out", self[f"{name}.csr"])
        return (self.folder / f"{name}.csr").read_bytes()

    def _issue(self, name: str, subject: str, extensions: str) -> None:
        self._key(name)
        (self.folder / f"{name}.ext").write_text(extensions)
        openssl("req", "-new", "-key", self[f"{name}.key"], "-subj", subject, "-out", self[f"{name}.csr"])
        authority = ["-CA", self["ca.crt"], "-CAkey", self["ca.key"], "-CAcreateserial", "-days", "3650"]
        files = ["-in", self[f"{name}.csr"], "-extfile", self[f"{name}.ext"], "-out", self[f"{name}.crt"]]
        openssl("x509", "-req", *authority, *files)

    def _make_authority(self) -> None:
        self._key("ca")
        usage = "keyUsage=critical,keyCertSign,digitalSignature"
        subject = ["-subj", "/CN=trimtab-test-ca", "-addext", usage]
        openssl("req", "-x509", "-new", "-key", self["ca.key"], "-days", "3650", *subject, "-out", self["ca.crt"])
        openssl("genrsa", "-out", self["sa.key"], "2048")
        openssl("rsa", "-in", self["sa.key"], "-pubout", "-out", self["sa.pub"])

    def _key(self, name: str) -> None:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self[f"{name}.key"])


def openssl(*arguments: str) -> None:
    """Run one openssl command; UnavailableError where it is missing or refuses."""
    if not shutil.which("openssl"):
        raise UnavailableError("the test cluster's certificates need the openssl command: apt-get install openssl")
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise UnavailableError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
