"""ONNX Runtime Web, the inference engine of the browser, downloaded with npm and cached."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from igcv.cache import cache_folder, unwritable
from igcv.errors import InputError
from igcv.writing import write_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The WebAssembly build, for one or several threads: an eighth of the package.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TIMEOUT_S = 600


def engine_files(say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Return the engine's files in the cache; download missing files first.

    Args:
        say: callback for progress messages.

    Raises:
        InputError: npm is missing or cannot download the package, or its checksum is wrong.
    """
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    files = [folder / name for name in FILES]
    if not all(file.is_file() for file in files):
        if why := unwritable():
            raise InputError(f"cannot cache {PACKAGE}: {why}")
        say(f"downloading {PACKAGE} {VERSION} with npm (33 MB, cached in {folder})")
        content = unpacked(packed())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create '{folder}': {error.strerror}. Set IGCV_CACHE to a writable folder"
            ) from error
        for file in files:
            write_file(file, content[file.name])
    return files


def packed() -> bytes:
    """Return the unverified .tgz package that npm downloads."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm not found, expected on the path: igcv web downloads the package {PACKAGE}. "
            "Install Node.js, which includes npm"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--prefer-offline"]
        try:
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise InputError(
                f"npm did not download {PACKAGE} {VERSION} within {TIMEOUT_S} s. Check the internet connection"
            ) from late
        archives = list(Path(folder).glob("*.tgz"))
        if ended.returncode or len(archives) != 1:
            said = (ended.stderr.strip() or "no file written").splitlines()[0]
            raise InputError(
                f"npm could not download {PACKAGE} {VERSION} ({said}). Check that 'npm ping' reaches the registry"
            )
        return archives[0].read_bytes()


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Return the contents of `FILES` in a package, by file name, after a check of its digest.

    Raises:
        InputError: the digest is wrong.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise InputError(
            f"checksum of {PACKAGE} {VERSION} from npm: got {found[:20]}..., expected {INTEGRITY[:20]}.... "
            "The package was discarded. Check the registry with 'npm config get registry'"
        )
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        return {name: _read(tar, f"package/dist/{name}") for name in FILES}


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None  # the digest guarantees a plain file
    return member.read()
