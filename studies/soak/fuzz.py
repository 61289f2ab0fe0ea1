"""Feed a reader with mutated files: `python -m studies.soak.fuzz READER SECONDS FOLDER` (needs atheris, on Linux).

It begins with the files in `corpus/READER`. New ones that reach new code are left in the folder, and as crash-* what
breaks the reader; those worth keeping can be moved to the corpus, which `make test` tries as well.
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
