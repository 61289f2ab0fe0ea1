"""MXNet RecordIO files as a source."""

from pathlib import Path

from igcv.data.images import RecordImages
from igcv.data.sources.parts import Parts, Request, names_beside, names_by_number
from igcv.errors import InputError

SYNTAX = "rec:TRAIN.rec,VAL.rec"


def open_records(request: Request) -> Parts:
    paths = request.argument.split(",")
    if len(paths) > 2 or not any(paths):
        raise InputError(
            f"data source 'rec:{request.argument}' names {sum(map(bool, paths))} files, expected {SYNTAX}"
        )
    train, val = (RecordImages(path) if path else None for path in (*paths, "")[:2])
    names = names_beside(Path(paths[0] or paths[1]))
    return Parts(train, val, names or names_by_number(train, val), named=bool(names))
