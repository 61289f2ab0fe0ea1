"""Names that other projects use for the settings of igcv, for error hints."""

from collections.abc import Mapping

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "model": ("arch", "architecture", "network", "net", "backbone", "model_name", "a"),
    "data": ("dataset", "data_dir", "data_path", "data_root", "root", "train_dir"),
    "input_size": ("imgsz", "img_size", "image_size", "imagesize", "img", "resolution", "res", "size", "crop_size"),
    "epochs": ("epoch", "num_epochs", "n_epochs", "nb_epochs", "max_epochs", "num_train_epochs"),
    "batch_size": ("bs", "batch", "batchsize", "b", "train_batch_size", "per_device_train_batch_size"),
    "lr": ("learning_rate", "learningrate", "lr0", "base_lr", "max_lr", "init_lr", "initial_lr", "eta"),
    "min_lr": ("lr_min", "eta_min", "final_lr", "end_lr"),
    "weight_decay": ("wd", "weightdecay", "l2", "decay"),
    "optimizer": ("opt", "optim"),
    "schedule": ("sched", "scheduler", "lr_scheduler", "lr_schedule", "lr_scheduler_type", "lr_policy"),
    "warmup_epochs": ("warmup", "warmup_epoch", "lr_warmup_epochs", "num_warmup_epochs"),
    "lr_factor": ("gamma", "lr_gamma", "decay_rate", "lr_decay"),
    "lr_step_epochs": ("milestones", "decay_epochs", "decay_milestones", "lr_steps", "step_size"),
    "clip_grad_norm": ("clip_grad", "grad_clip", "gradient_clip", "gradient_clip_val", "max_grad_norm", "max_norm"),
    "accumulation": (
        *("accumulate", "grad_accum", "grad_accum_steps", "accum_steps", "accumulation_steps"),
        *("gradient_accumulation", "gradient_accumulation_steps", "accumulate_grad_batches"),
    ),
    "label_smoothing": ("smoothing", "label_smooth", "ls", "label_smoothing_factor"),
    "drop_rate": ("dropout", "drop", "dropout_rate"),
    "ema_decay": ("ema", "model_ema", "model_ema_decay"),
    "randaugment": ("aa", "auto_augment", "autoaugment", "ra", "rand_augment"),
    "random_erasing": ("reprob", "erasing", "random_erase", "re_prob", "cutout"),
    "augment": ("aug", "augmentation", "augmentations"),
    "precision": ("amp", "dtype", "fp16", "bf16", "half", "mixed_precision", "amp_dtype"),
    "workers": ("num_workers", "n_workers", "nw", "j", "dataloader_num_workers"),
    "init_from": ("pretrained", "weights", "finetune", "checkpoint", "initial_checkpoint", "init"),
    "freeze": ("freeze_epochs", "freeze_backbone"),
    "patience": ("early_stopping", "early_stop", "early_stopping_patience"),
    "max_minutes": ("time", "max_time", "time_limit", "minutes", "time_budget"),
    "class_weights": ("class_weight", "weights_per_class"),
    "compile": ("torchcompile", "torch_compile"),
    "seed": ("random_seed", "manual_seed", "random_state"),
    "--out": ("out", "output", "output_dir", "out_dir", "save_dir", "log_dir", "logdir", "project", "work_dir", "o"),
    "--device": ("device", "accelerator"),
    "--gpus": ("gpus", "gpu", "gpu_ids", "num_gpus", "devices"),
    "--resume": ("resume", "resume_from", "resume_from_checkpoint"),
    "--quiet": ("quiet", "silent"),
}  # fmt: skip
_OURS = {usual: ours for ours, names in USUAL_NAMES.items() for usual in names}


def our_name(given: str) -> str | None:
    """Return the recipe key or `igcv train` option that other projects call `given`; None if unknown.

    >>> our_name("Learning-Rate"), our_name("imgsz"), our_name("color")
    ('lr', 'input_size', None)
    """
    return _OURS.get(given.strip().lower().replace("-", "_"))
