"""Table of the forms of a folded block. `igcv.deploy.folding.inverted` builds the forms."""

from typing import NamedTuple


class Form(NamedTuple):
    """Assignment of the expanded channels to paths. `igcv.deploy.folding.inverted` defines source and reader.

    Attributes:
        by_reader, by_source: whether each reader, or each source, has its own paths.
        group_expand, group_project: whether the expanding, or the projecting, convolution of a path is grouped.
        slices: number of equal parts into which all channels are split, one path per part.
    """

    by_reader: bool = False
    by_source: bool = False
    group_expand: bool = False
    group_project: bool = False
    slices: int = 1


LITERAL = "literal"
FORMS = {
    "dense": Form(),
    "group_dense": Form(group_expand=True),
    "dense_group": Form(group_project=True),
    "group_group": Form(group_expand=True, group_project=True),
    "branches": Form(by_reader=True),
    "group_branches": Form(by_reader=True, group_expand=True),
    "sources": Form(by_source=True),
    "sources_group": Form(by_source=True, group_project=True),
    "partial_sums": Form(by_reader=True, by_source=True),
    "slices_2": Form(slices=2),
    "slices_4": Form(slices=4),
}
