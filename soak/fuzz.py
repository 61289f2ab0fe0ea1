"""Feed a reader with mutated files: `python -m soak.fuzz READER SECONDS` (needs atheris, on Linux).

New files that reach new code are added to `corpus/READER`; one that breaks the reader is left as crash-*.
"""

import sys

import atheris

with atheris.instrument_imports(include=["igcv", "tomllib", "json"]):
    from soak.readers import CORPUS, READERS

LIMITS = ("-timeout=10", "-rss_limit_mb=3000", "-max_len=16384", "-print_final_stats=1")


def main() -> None:
    name, seconds, *more = sys.argv[1:]
    reader = READERS[name]
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    options = [sys.argv[0], str(CORPUS / name), f"-max_total_time={seconds}", *LIMITS, *more]
    atheris.Setup(options, lambda data: reader(bytes(data)) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
