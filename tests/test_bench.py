"""Tests of `igcv bench data`: metrics, table and errors. The measured values are not tested."""

import json

import pytest

from igcv.commands.printing.training import print_data_bench


def bench(igcv_command, digit_folder, *more):
    return igcv_command(
        "bench", "data", *more, "batch_size=8", "--data", digit_folder, "--device", "cpu", "--seconds", "0.5"
    )


@pytest.mark.parametrize(
    "more, workers, resident",
    [
        (("augment=inception", "workers=1", "--json"), 1, "off"),
        (("digits.toml", "resident=on", "--model", "igcv3_d_050", "--json"), 0, "on"),
    ],
)
def test_figures_of_the_data_pipeline(igcv_command, digit_folder, more, workers, resident):
    ended = bench(igcv_command, digit_folder, *more)
    assert ended.status == 0, ended.err
    figures = json.loads(ended.out)
    assert (figures["images"], figures["batch_size"], figures["input_size"]) == (24, 8, 16)
    assert (figures["workers"], figures["resident"]) == (workers, resident)
    for name in ("loading", "training", "waiting"):
        spread = figures[name]
        assert 0 <= spread["low"] <= spread["median"] <= spread["high"]
    assert figures["training"]["median"] > 0 and figures["waiting"]["high"] < 1
    assert figures["machine"]["device"] == "cpu"


def test_table_of_the_data_pipeline(igcv_command, digit_folder):
    ended = bench(igcv_command, digit_folder, "augment=flip_crop", "resident=off")
    assert ended.status == 0, ended.err
    assert (
        "24 training images, augment flip_crop; batches of 8, 16 px; no data-loading workers; cpu"
        in ended.out
    )
    assert "per data-loading worker" not in ended.out
    for row in (
        "loading only, images/s",
        "training igcv3_d_p50, images/s",
        " % to ",
    ):
        assert row in ended.out


def test_the_speed_per_worker_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    spread = {"median": 90.0, "low": 60.0, "high": 120.0}
    figures = {
        **{"data": "photos", "images": 24, "resident": "off", "augment": "none", "batch_size": 8},
        **{"input_size": 16, "machine": {"device": "cpu"}, "model": "igcv3_d_p50", "peak_memory_mib": 1},
        **{
            "largest_batch_size": 8,
            "loading": spread,
            "training": spread,
            "waiting": dict.fromkeys(spread, 0.1),
        },
    }
    print_data_bench({**figures, "workers": 3})
    out = capsys.readouterr().out
    assert "; 3 data-loading workers; cpu" in out
    assert [line.split() for line in out.splitlines() if "per data-loading worker" in line] == [
        ["per", "data-loading", "worker", "30.0", "20.0", "to", "40.0"]
    ]
    print_data_bench({**figures, "workers": 1})
    assert "; 1 data-loading worker; cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "no data set given. Add --data"),
        (("--data", "nowhere"), "unknown data source 'nowhere'"),
        (("--data", "digits", "batchsize=4"), "unknown recipe key 'batchsize'; did you mean 'batch_size'?"),
        (("--data", "digits", "--device", "gpu"), "device: got 'gpu', expected auto, cpu"),
    ],
)
def test_what_bench_data_refuses(igcv_command, arguments, message):
    ended = igcv_command("bench", "data", *arguments)
    assert ended.status == 2 and ended.err.startswith(f"igcv: {message}")
