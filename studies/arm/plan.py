"""Networks and exported files of the study."""

from collections.abc import Iterator
from typing import NamedTuple

from igcv.deploy.folding.forms import FORMS, LITERAL
from igcv.deploy.folding.plan import AUTO, foldable_blocks
from igcv.deploy.writers.table import WRITERS
from igcv.models import Network

BASELINE = "mobilenetv2_100"
COMPARED = (BASELINE, "igcv3_d_100", "igcv3_d_half", "igcv3_d_p70", "igcv3_d_p50")  # random weights
RELEASED = "igcv3_d_p50.cifar10"
SMALL, LARGE = 32, 224  # pixels
ENGINES = ("litert", "ncnn", "onnx")
FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
INSTEAD_OF_AUTO = "group_branches"  # the fastest fixed form in ONNX Runtime on x86


class Subject(NamedTuple):
    """A network at an image size.

    Attributes:
        network: catalog name, or name of released weights.
        size: side of the images, in pixels.
        images: number of images.
        all_forms: whether every form belongs to the short set of files.
    """

    network: str
    size: int
    images: int
    all_forms: bool = False


class Case(NamedTuple):
    """An exported file of a network."""

    subject: Subject
    engine: str
    form: str
    precision: str

    @property
    def key(self) -> str:
        """The key in the results."""
        network, size, *_ = self.subject
        return f"{network}/{size}/{self.engine}/{self.form}/{self.precision}"

    @property
    def rank(self) -> tuple[bool, bool]:
        """The place in the order of the files: float32 first, every form of a network last."""
        return self.subject.all_forms, self.precision != FLOAT32


SUBJECTS = (
    Subject(RELEASED, SMALL, 4),
    *(Subject(name, size, count) for size, count in ((SMALL, 2), (LARGE, 1)) for name in COMPARED),
    Subject(RELEASED, SMALL, 4, all_forms=True),
)


def cases(subject: Subject, model: Network, full: bool) -> Iterator[Case]:
    """Yield the files of a network: the default form in every precision, then the other forms.

    Args:
        subject: the network and its image size.
        model: the network itself, which determines the forms.
        full: yield every form in every precision, not only the short set.
    """
    for engine in ENGINES:
        default, others = forms_of(engine, subject.size, model)
        for precision in precisions(engine):
            yield Case(subject, engine, default, precision)
        for form in others if full or subject.all_forms else ():
            for precision in precisions(engine) if full else (FLOAT32,):
                yield Case(subject, engine, form, precision)


def forms_of(engine: str, size: int, model: Network) -> tuple[str, list[str]]:
    """Return the form of the short set, and the other forms that a block of the network has."""
    had = {form for block in foldable_blocks(model).values() for form in block.forms}
    known = [form for form in (LITERAL, *FORMS) if form in had]
    wanted = WRITERS[engine].form(size)
    wanted = INSTEAD_OF_AUTO if wanted == AUTO else wanted
    default = wanted if wanted in known else known[0]
    return default, [form for form in known if form != default]


def precisions(engine: str) -> list[str]:
    """Return the precisions in which igcv writes files for an engine."""
    return [FLOAT32, *(name for name in (FLOAT16, INT8) if name in WRITERS[engine].can)]
