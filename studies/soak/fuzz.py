"""Fuzzing of one reader: `python -m studies.soak.fuzz READER SECONDS FOLDER` (needs atheris, on Linux).

The fuzzer starts with the files in `corpus/READER`. It writes mutated files that reach new code to FOLDER, and files
that break the reader to FOLDER as crash-*. Move useful files to the corpus: `make test` also reads the corpus.
"""

import sys

import atheris

with atheris.instrument_imports(include=["igcv", "tomllib", "json"]):
    from studies.soak.readers import CORPUS, READERS

LIMITS = ("-timeout=10", "-rss_limit_mb=3000", "-max_len=16384", "-print_final_stats=1")


def main() -> None:
    name, seconds, folder = sys.argv[1:]
    reader = READERS[name]
    options = [
        sys.argv[0],
        folder,
        str(CORPUS / name),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([*options, *LIMITS], lambda data: reader(bytes(data)) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
