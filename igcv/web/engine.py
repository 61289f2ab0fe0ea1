"""ONNX Runtime Web, the engine that runs networks in a browser: fetched with the user's npm and kept in the cache."""

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
# The build for WebAssembly alone, with one thread or several: an eighth of the package.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TIMEOUT_S = 600


def engine_files(say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """The engine's files in the cache; those that are not there yet are fetched.

    Args:
        say: callback for progress messages.

    Raises:
        InputError: npm is missing or cannot fetch the package, or the package is not the one expected.
    """
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    files = [folder / name for name in FILES]
    if not all(file.is_file() for file in files):
        if why := unwritable():
            raise InputError(f"{PACKAGE} has to be kept: {why} to a folder that can be written")
        say(f"fetching {PACKAGE} {VERSION} with npm (33 MB; kept in {folder} for the next time)")
        content = unpacked(packed())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make {folder}: {error.strerror}; set IGCV_CACHE to a folder that can be written"
            ) from error
        for file in files:
            write_file(file, content[file.name])
    return files


def packed() -> bytes:
    """The package as npm delivers it, a .tgz, before anything in it is trusted."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"a page needs the npm package {PACKAGE}, and there is no npm on the path to fetch it; "
            "install Node.js, which comes with npm"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--prefer-offline"]
        try:
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise InputError(
                f"npm did not fetch {PACKAGE} {VERSION} within {TIMEOUT_S} s; check the network"
            ) from late
        archives = list(Path(folder).glob("*.tgz"))
        if ended.returncode or len(archives) != 1:
            said = (ended.stderr.strip() or "it wrote no file").splitlines()[0]
            raise InputError(
                f"npm could not fetch {PACKAGE} {VERSION} ({said}); check that 'npm ping' reaches its registry"
            )
        return archives[0].read_bytes()


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The files that a page needs, by name, of a package with the right digest.

    Raises:
        InputError: it has another digest.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise InputError(
            f"npm delivered another {PACKAGE} {VERSION} than expected ({found[:20]}..., not {INTEGRITY[:20]}...); "
            "nothing of it was used. Check which registry 'npm config get registry' names"
        )
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        return {name: _read(tar, f"package/dist/{name}") for name in FILES}


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None  # the digest has told that it is a plain file
    return member.read()
