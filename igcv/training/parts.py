"""Parts of a run with one image size and loader each (progressive resizing)."""

from igcv.data import BATCHED, Finish, Loader, LoaderSettings, make_loader, train_transform
from igcv.data.preprocessing import plain_transform
from igcv.evaluation.accuracy import evaluation_loader
from igcv.machine.processes import together
from igcv.training.job import WORTH_WORKERS, Job

SMALLEST_BATCH = 64  # images of a validation batch
GPU_BATCH, GPU_SIDE = (
    500,
    64,
)  # the same for resident images of at most this side, on a GPU; fewer larger ones
Loaders = tuple[Loader, Loader | None]  # training and validation loader


class Parts:
    """The parts of a run, one of them open.

    Attributes:
        job: the run, with the preprocessing of the open part.
        train: training loader of the open part.
        val: validation loader of the open part; None without validation images.
    """

    def __init__(self, job: Job, loaders: Loaders) -> None:
        self.job, (self.train, self.val) = job, loaders

    @classmethod
    def of(cls, job: Job) -> "Parts":
        """Return the parts of a run and open the part with the preprocessing of `job`."""
        return cls(job, make_loaders(job))

    @property
    def size(self) -> int:
        """The image side of the open part in pixels."""
        return self.job.preprocessing.input_size

    def go_to(self, epoch: int) -> bool:
        """Open the part of `epoch` (from 0) and close the previous one; return whether the part has changed."""
        job = self.job.at(epoch)
        if job.preprocessing == self.job.preprocessing:
            return False
        bad = self.train.bad
        self.close()
        with together():
            self.job, (self.train, self.val) = job, make_loaders(job)
        self.train.bad |= bad
        return True

    def close(self) -> None:
        """End the data-loading workers and free the resident images of the open part."""
        for loader in filter(None, (self.train, self.val)):
            loader.close()


def make_loaders(job: Job) -> Loaders:
    """Return the training and validation loader for the image size of the job's preprocessing."""
    recipe, source, process = job.recipe, job.source, job.process
    assert source.train is not None
    pre, layout = job.preprocessing, recipe.channels_last
    resident = BATCHED[recipe.augment] if recipe.resident == "on" else None
    augmented = train_transform(pre, recipe.augment, recipe.randaugment)
    settings = LoaderSettings(
        batch_size=job.batch_size,
        train=True,
        seed=recipe.seed,
        workers=job.workers,
        rank=process.rank,
        world_size=process.world_size,
        skip_bad=True,
        max_bad=recipe.max_bad_images if recipe.max_bad_images >= 0 else None,
        drop_last=recipe.drop_last,
        resident=resident,
        balanced=recipe.sampling == "balanced",
        epoch_images=recipe.epoch_images,
    )
    finish = Finish(pre, process.device, layout, recipe.random_erasing)
    transform = augmented if resident is None else plain_transform(pre)
    train_loader = make_loader(source.train, transform, finish, settings)
    if source.val is None:
        return train_loader, None
    workers = job.workers if len(source.val) >= WORTH_WORKERS else 0
    least = SMALLEST_BATCH
    if resident and process.device.type == "cuda":
        least = max(least, GPU_BATCH * GPU_SIDE**2 // max(GPU_SIDE, pre.input_size) ** 2)
    finish = Finish(pre, process.device, layout)
    val_batch = max(job.batch_size, least)
    return train_loader, evaluation_loader(source.val, finish, val_batch, workers, process, resident)
