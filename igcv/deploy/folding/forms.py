"""The forms in which a folded block can be computed, as a table; `igcv.deploy.folding.inverted` builds them."""

from typing import NamedTuple


class Form(NamedTuple):
    """How the expanded channels are shared out.

    Attributes:
        by_reader, by_source: whether each reader, each source has paths of its own.
        group_expand, group_project: whether the convolution of a path is grouped where it serves several.
        slices: parts of equal size into which a path of all channels is cut.
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
