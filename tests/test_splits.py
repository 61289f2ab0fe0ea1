"""Validation splits by the hash of names, by a list, and by the list of a run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import igcv
from igcv.classifier import load
from igcv.data import open_source, write_records
from igcv.data.sources.hashed import FREE, TRAIN, VAL, hold_out, place
from igcv.data.sources.listed import ListedImage, SplitList, list_bytes, normal, read_list
from igcv.data.sources.open import DataSource
from igcv.data.sources.parts import Rule
from igcv.data.sources.spec import same_source
from igcv.errors import InputError
from igcv.training.run import SPLIT
from tests.conftest import Igcv
from tests.test_sources import fill, png, shades

SMALL = {"model": "igcv3_w_010", "input_size": 16, "batch_size": 8, "epochs": 1, "workers": 0}
NAMES = st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=40)


def names(images) -> list[str]:
    return [] if images is None else [images.key(i) for i in range(len(images))]


def write_list(file: Path, *rows: str, header: str = "path,label,split") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def test_the_hash_is_the_one_of_sha256sum():
    # printf cat/1.jpg | sha256sum: 634a07bf9defd6c8...
    assert place("cat/1.jpg") == 0x634A07BF9DEFD6C8 / 2**64
    # printf 'caf\xc3\xa9/1.jpg' | sha256sum, for the composed and for the decomposed character
    assert place("caf\u00e9/1.jpg") == place("cafe\u0301/1.jpg") == 0xD31B2C02DB50DDE3 / 2**64
    assert place("0.png", "1:") == place("1:0.png")
    assert 0 < place("not \udcff UTF-8.jpg") < 1


def test_a_fifth_of_many_names_validates():
    found = hold_out([f"class{i % 10}/IMG_{i:05}.jpg" for i in range(20_000)], np.arange(20_000) % 10)
    assert 3_800 < (found.parts == VAL).sum() < 4_200  # 4,000 expected, standard deviation 57
    assert found.helped == []


@given(NAMES, NAMES, st.integers(1, 5))
def test_other_images_move_none(some: set[str], more: set[str], classes: int):
    """Adding or removing images keeps the parts of the others, unless a class would lack a part."""

    def parts(chosen: set[str]) -> dict[str, int]:
        listed = sorted(chosen)
        labels = np.array([len(name) % classes for name in listed], np.int64)
        found = hold_out(listed, labels)
        for label in range(classes):
            of_class = found.parts[labels == label]
            assert len(of_class) < 2 or {TRAIN, VAL} == set(of_class.tolist())  # both parts
            assert len(of_class) != 1 or of_class[0] == TRAIN  # a single image is used for training
        return dict(zip(listed, found.parts.tolist(), strict=True))

    def settled(chosen: set[str], name: str) -> bool:
        of_class = [place(other) < 0.2 for other in chosen if len(other) % classes == len(name) % classes]
        return any(of_class) and not all(of_class)

    before, after = parts(some), parts(some | more)
    for name in some:
        if settled(some, name) and settled(some | more, name):
            assert before[name] == after[name] == (place(name) < 0.2)


def test_classes_that_no_hash_helps(tmp_path):
    fill(tmp_path, {"ant": 3, "cat": 9})  # SHA-256 of ant/0, 1 and 2.png: 9690..., ac63..., fe1b...
    source = open_source(str(tmp_path))
    assert names(source.val) == ["ant/0.png", "cat/0.png", "cat/5.png", "cat/7.png", "cat/8.png"]
    (note,) = source.notes
    assert (
        note == "no hash below 0.2, so the image with the lowest is held out for validation, in classes: ant"
    )
    low = [name for name in map("x{}".format, range(99)) if place(name) < 0.2][:3]
    found = hold_out([*low, "y"], np.array([0, 0, 0, 1]))  # all of class 0 below 0.2: the highest trains
    assert found.parts.tolist() == [TRAIN if place(n) == max(map(place, low)) else VAL for n in low] + [TRAIN]
    fixed = hold_out(["a", "b"], np.array([0, 0]), fixed=np.array([TRAIN, FREE]))
    assert fixed.parts.tolist() == [TRAIN, VAL] and fixed.helped == [0]  # fixed parts stay
    kept = hold_out(["a", "b"], np.array([0, 0]), fixed=np.array([TRAIN, TRAIN]))
    assert kept.parts.tolist() == [TRAIN, TRAIN] and kept.helped == []


def test_moving_the_folder_changes_nothing(tmp_path, monkeypatch):
    fill(tmp_path / "here" / "photos", {"cat": 10, "ant": 5})
    before = open_source(f"folder:{tmp_path / 'here' / 'photos'}")
    shutil.move(tmp_path / "here" / "photos", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    after = open_source("folder:.")
    assert names(before.val) == names(after.val) and names(before.train) == names(after.train)


def test_choices_among_training_images_have_a_split_of_their_own(tmp_path):
    fill(tmp_path, {"cat": 10, "ant": 5})
    whole, inner = open_source(str(tmp_path)), open_source(f"train:{tmp_path}")
    assert sorted(names(inner.train) + names(inner.val)) == sorted(names(whole.train))
    low = [name for name in names(whole.train) if place("train:" + name) < 0.2]
    assert set(low) <= set(names(inner.val))
    assert names(open_source(f"train:train:{tmp_path}").val) != names(inner.val)


def test_records_keep_their_keys(tmp_path):
    file = tmp_path / "t.rec"
    write_records(file, [(i % 2, png(i)) for i in range(20)])
    index = file.with_suffix(".idx")
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[2:]))  # two records are left out; the others keep their keys
    assert names(open_source(f"rec:{file}").val) == ["8", "9"]
    index.write_text(
        "\n".join(f"x{line}" for line in lines)
    )  # keys that are not numbers are replaced by positions
    assert names(open_source(f"rec:{file}").val) == ["8", "9"]


def test_a_list_says_it_all(tmp_path):
    """A list gives labels and parts of images in one folder; unlisted images are left out."""
    root = fill(tmp_path, {"photos": 6}) / "photos"
    rows = ["0.png,dog,train", "./1.png,cat,train", '"2.png",dog,val', "3.png,cat,test", "4.png,cat,val"]
    source = open_source(f"folder:{root}", split=write_list(tmp_path / "list.csv", *rows))
    assert source.class_names == ("cat", "dog")
    found = [(names(part), part.labels.tolist()) for part in (source.train, source.val, source.test)]
    assert found == [(["0.png", "1.png"], [1, 0]), (["2.png", "4.png"], [1, 0]), (["3.png"], [0])]
    assert source.notes == (f"1 images of {root} are not in {tmp_path / 'list.csv'} and are left out",)
    assert shades(source.part("test")) == [3]
    with pytest.raises(InputError, match="unknown part 'tset'; did you mean 'test'"):
        source.part("tset")


def test_groups_stay_together(tmp_path):
    root = fill(tmp_path, {"photos": 6}) / "photos"
    # SHA-256: emil 06ad..., anna 5557..., cleo cbdd...; 5.png alone: ed93...
    rows = ["0.png,a,anna", "1.png,b,anna", "2.png,a,emil", "3.png,b,emil", "4.png,a,cleo", "5.png,b,"]
    file = write_list(tmp_path / "list.csv", *rows, header="path,label,group")
    source = open_source(f"folder:{root}", split=file)
    assert names(source.val) == ["2.png", "3.png"] and source.notes == ()
    file = write_list(
        tmp_path / "list.csv", *(row.replace("emil", "fred") for row in rows), header="path,label,group"
    )
    source = open_source(
        f"folder:{root}", split=file
    )  # anna is the lowest, and each class keeps other images
    assert names(source.val) == ["0.png", "1.png"] and "in classes: a" in source.notes[0]
    everything = open_source(f"folder:{root}", seed=None, split=file)
    assert everything.train is None and len(everything.val) == 6


def test_a_list_without_parts_labels_images(tmp_path):
    root = fill(tmp_path, {"photos": 6}) / "photos"
    file = write_list(tmp_path / "list.csv", *(f"{i}.png,x" for i in range(6)), header="path,label")
    assert names(open_source(f"folder:{root}", split=file).val) == ["0.png"]  # 0f25...; 2.png has 3376...


def test_a_list_of_one_part(tmp_path):
    root = fill(tmp_path, {"photos": 2}) / "photos"
    source = open_source(
        f"folder:{root}", split=write_list(tmp_path / "list.csv", "0.png,x,test", "1.png,y,test")
    )
    assert source.train is None and source.val is None and len(source.test) == 2 and source.image_size == 8


def test_lists_of_records(tmp_path):
    write_records(tmp_path / "t.rec", [(i % 2, png(i)) for i in range(4)])
    file = write_list(tmp_path / "list.csv", "0,0,val", "1,1,train", "2,0,train")
    source = open_source(f"rec:{tmp_path / 't.rec'}", split=file)
    assert (names(source.train), names(source.val)) == (["1", "2"], ["0"])
    assert source.notes == (f"1 images are not in {file} and are left out",)
    write_list(file, "0,0,val", "1,0,train")
    with pytest.raises(
        InputError, match=r"line 3: '1' has the label '0', expected '1', its class in the source"
    ):
        open_source(f"rec:{tmp_path / 't.rec'}", split=file)
    write_list(file, "0,0,val", "7,0,train")
    with pytest.raises(
        InputError, match=r"line 3: '7' is not an image of .*t.rec \(1 such lines\).*e\.g\. '0'"
    ):
        open_source(f"rec:{tmp_path / 't.rec'}", split=file)
    with pytest.raises(
        InputError, match=r"list.csv: a list cannot split digits, which has its own parts.*Omit --split"
    ):
        open_source("digits", split=file)
    with pytest.raises(InputError, match=r"list.csv: a list cannot split train:digits. Omit --split"):
        open_source("train:digits", split=file)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"path;label;split\n",
            "line 1: got the columns 'path;label;split', expected path,label,split,group",
        ),
        (b"path,split\na.png,val\n", "line 1: got the columns 'path,split'"),
        (b"path,label,size\n", "line 1: got the columns 'path,label,size'"),
        (b"path,label,label\n", "line 1: got the columns 'path,label,label'"),
        (b"", "line 1: got the columns ''"),
        (b"path,label\n", "line 2: the list has no images"),
        (b"path,label\na.png,x\n\nb.png\n", "line 4: got 1 values, expected 2"),
        (b"path,label\na.png,\n", "line 2: 'a.png' has no label, expected the name of its class"),
        (b"path,label\n,x\n", "line 2: the path is empty"),
        (b"path,label,split\na.png,x,vall\n", "line 2: unknown split 'vall'; did you mean 'val'"),
        (b"path,label,split\na.png,x,\n", "line 2: unknown split '' .*or omit the whole column"),
        (b"path,label\na.png,x\nb.png,x\n./a.png,y\n", "line 4: 'a.png' is in line 2 too"),
        (b"path,label\na.png,x\n\xe9.png,x\n", "line 3: byte 0xe9 is not UTF-8"),
        (b'path,label\n"a.png,x\n', "line 2: invalid CSV"),
        (
            b"path,label,split,group\na,x,train,Rex\nb,x,val,\nc,x,val,Rex\n",
            "line 4: the group 'Rex' is in val here and in train in line 2, expected one part",
        ),
    ],
)
def test_wrong_lists(content, message, tmp_path):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"list.csv, {message}"):
        read_list(tmp_path / "list.csv")


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"none.csv: cannot be read \(No such file.*expected a CSV list"):
        read_list(tmp_path / "none.csv")
    fill(tmp_path, {"photos": 2})
    file = write_list(tmp_path / "list.csv", "0.png,x,val", "photos/1.png,x,train")
    with pytest.raises(
        InputError,
        match=r"line 3: 'photos/1.png' is not an image of .*photos \(1 such lines\).*e\.g\. '0.png'",
    ):
        open_source(f"folder:{tmp_path / 'photos'}", split=file)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0/.", exclude_categories=["Cs"]), min_size=1),
        st.tuples(st.sampled_from(["a", "b, c", '"']), st.sampled_from(["train", "val", "test"])),
        min_size=1,
    )
)
def test_a_written_list_reads_back(tmp_path_factory, images: dict[str, tuple[str, str]]):
    rows = {row.path: row for row in (ListedImage(normal(name), *rest) for name, rest in images.items())}
    file = tmp_path_factory.mktemp("lists") / "split.csv"
    file.write_bytes(list_bytes(rows.values()))
    assert [row[:3] for row in read_list(file, kept=True).images] == [row[:3] for row in rows.values()]


def test_names_that_are_not_utf_8(tmp_path):
    (tmp_path / "split.csv").write_bytes(list_bytes([ListedImage("a/\udcff.png", "a", "val")]))
    assert read_list(tmp_path / "split.csv", kept=True).images[0].path == "a/\udcff.png"


def test_a_third_part(tmp_path):
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    fill(tmp_path / "test", {"a": 1, "b": 2})
    source = open_source(str(tmp_path))
    assert [len(part) for part in (source.train, source.val, source.test)] == [4, 2, 3]
    said = f"{tmp_path.name}: train/ for training, val/ for validation, test/ for final accuracy"
    assert source.notes == (said,) and not source.divided
    shutil.rmtree(tmp_path / "val")
    source = open_source(str(tmp_path))  # the test images are used for validation, with a note
    assert len(source.val) == 3 and source.test is None
    assert source.notes == (
        f"{tmp_path.name}: train/ for training, test/ for validation",
        "no val/ folder: test/ is used for validation, so no images are left for the final accuracy",
    )
    with pytest.raises(
        InputError, match=r"has no test images. Give a folder test/ next to train/ and val/, or a"
    ):
        source.part("test")
    shutil.rmtree(tmp_path / "test")
    fill(tmp_path / "val", {"a": 1, "b": 1})
    fill(tmp_path, {"test": 3})
    said = f"{tmp_path.name}: train/ for training, val/ for validation; not used: test/ (no class folders)"
    assert open_source(str(tmp_path)).notes == (said,)
    fill(tmp_path / "test", {"c": 1})
    with pytest.raises(
        InputError, match=r"train/ and test/ have different class folders.*Only in one: 'a', 'b'"
    ):
        open_source(str(tmp_path))


def test_specs_of_one_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert same_source("photos", "folder:photos/") and same_source("folder:photos", str(tmp_path / "photos"))
    assert same_source("digits", "digits") and not same_source("digits", "cifar10")
    assert not same_source("photos", "folder:other") and not same_source("rec:a", "rec:b")


@pytest.fixture
def photos(digit_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(digit_folder / "train", tmp_path / "photos")


def train(photos: Path, out: Path, **settings: object) -> igcv.TrainedRun:
    return igcv.train(out=out, data=str(photos), device="cpu", quiet=True, **(SMALL | settings))


def grow(photos: Path) -> None:
    """Add ten copies of photos per class under new names, and remove one photo."""
    for name in ("one", "zero"):
        for i, file in enumerate(sorted((photos / name).iterdir())[:10]):
            shutil.copy(file, photos / name / f"new{i}.png")


def test_a_run_keeps_its_list(photos: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    run = train(photos, tmp_path / "run")
    before = run.classifier.open_data()
    listed = read_list(run.folder / SPLIT).images
    assert {(row.path, row.split) for row in listed} == {
        *((name, "train") for name in names(before.train)),
        *((name, "val") for name in names(before.val)),
    }
    assert all(row.label == row.path.partition("/")[0] for row in listed)
    first = igcv.evaluate(run.folder, device="cpu")
    assert (first.images, first.top1, first.notes) == (
        len(before.val),
        pytest.approx(run.summary["best_top1"]),
        (),
    )
    grow(photos)
    (photos / "one" / names(before.train)[0].partition("/")[2]).unlink()
    after = run.classifier.open_data()
    assert set(names(before.val)) <= set(names(after.val))
    assert set(names(before.train)) & set(names(after.val)) == set()
    new = {name for name in names(after.val) if "new" in name}
    assert new == {
        f"{c}/new{i}.png" for c in ("one", "zero") for i in range(10) if place(f"{c}/new{i}.png") < 0.2
    }
    said = igcv_command("evaluate", run.folder, "--device", "cpu")
    line = (
        f"since the start of the run: 20 new images ({20 - len(new)} training, {len(new)} validation), "
        "1 images missing"
    )
    assert said.status == 0 and line in said.out
    assert line in igcv_command("evaluate", run.folder, "--device", "cpu", "--json").err
    for name in new:
        (photos / name).unlink()
    again = igcv.evaluate(run.folder, device="cpu")  # the same images, the same accuracy
    assert (again.top1, again.images, again.loss) == (first.top1, first.images, first.loss)


def test_the_list_counts_where_the_hash_says_otherwise(photos: Path, tmp_path: Path) -> None:
    """The list in the run folder determines the split; weights outside use the hash."""
    run = train(photos, tmp_path / "run")
    by_hash = run.classifier.open_data()
    turned = {"train": "val", "val": "train"}
    rows = [row._replace(split=turned[row.split]) for row in read_list(run.folder / SPLIT).images]
    (run.folder / SPLIT).write_bytes(list_bytes(rows))
    assert names(load(run.folder / "last.safetensors").open_data().val) == names(by_hash.train)
    shutil.copy(run.folder / "best.safetensors", tmp_path / "copied.safetensors")
    shutil.copy(run.folder / SPLIT, tmp_path)  # a list of this name next to weights is not a run's list
    assert names(load(tmp_path / "copied.safetensors").open_data().val) == names(by_hash.val)
    assert names(load(run.folder).open_data(f"folder:{photos}/").val) == names(
        by_hash.train
    )  # the same folder


def test_resuming_with_a_changed_folder(photos: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    run = train(photos, tmp_path / "run")
    kept, before = (run.folder / SPLIT).read_bytes(), run.classifier.open_data()
    grow(photos)
    resumed = igcv_command("train", "--resume", "--out", run.folder, "--device", "cpu", "epochs=2")
    assert resumed.status == 0 and "since the start of the run: 20 new images" in resumed.out
    assert (run.folder / SPLIT).read_bytes() == kept
    assert set(names(before.val)) <= set(names(load(run.folder).open_data().val))
    with pytest.raises(
        InputError,
        match=r"split: got /.*/other.csv, expected '' as in the run '.*'. Resume with the run's value",
    ):
        igcv.train(out=run.folder, resume=True, epochs=3, split="other.csv", device="cpu", quiet=True)


def test_training_by_a_list(photos: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch) -> None:
    """Images in one folder are labeled by a list with a test part, which training never opens."""
    monkeypatch.chdir(tmp_path)
    flat, rows = tmp_path / "flat", []
    flat.mkdir()
    for label in ("one", "zero"):
        for i, file in enumerate(sorted((photos / label).iterdir())):
            shutil.copy(file, flat / f"{label}{i}.png")
            rows.append(f"{label}{i}.png,{label},{('train', 'train', 'val', 'test')[i % 4]}")
    for row in rows:
        if row.endswith("test"):
            (flat / row.partition(",")[0]).write_bytes(b"no image: training would fail here")
    write_list(tmp_path / "list.csv", *rows)
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    trained = igcv_command(
        *(
            "train",
            "--data",
            "folder:flat",
            "--split",
            "list.csv",
            "--out",
            "run",
            "--device",
            "cpu",
            *settings,
        )
    )
    assert trained.status == 0, trained.err
    assert "12 training and 6 validation images (6 test images are not used; see split.csv)" in trained.out
    listed = read_list(tmp_path / "run" / SPLIT).images
    assert sorted(f"{row.path},{row.label},{row.split}" for row in listed) == sorted(rows)
    for i, file in enumerate(sorted((photos / "one").iterdir())):
        if i % 4 == 3:
            shutil.copy(file, flat / f"one{i}.png")
            shutil.copy(file, flat / f"zero{i}.png")
    final = igcv_command("evaluate", "run", "--part", "test", "--device", "cpu")
    assert final.status == 0 and "6 images of the part 'test'" in final.out
    assert igcv.evaluate("run", device="cpu").images == 6
    (tmp_path / "list.csv").unlink()  # the run has its own list
    assert igcv.evaluate("run", part="test", device="cpu").images == 6
    write_list(tmp_path / "other.csv", "one0.png,one,val", "zero0.png,zero,val")
    assert igcv.evaluate("run", split="other.csv", device="cpu").images == 2
    shutil.copy(tmp_path / "run" / "best.safetensors", "copied.safetensors")
    with pytest.raises(InputError, match=r"list.csv: cannot be read"):
        igcv.evaluate("copied.safetensors", device="cpu")


def test_runs_from_before_keep_their_split(photos: Path, tmp_path: Path) -> None:
    """Weights of an igcv version that split by position have a recipe without the key split."""
    run = train(photos, tmp_path / "run")
    classifier = run.classifier
    del classifier.card.recipe["split"]
    (run.folder / SPLIT).unlink()
    found = classifier.open_data()
    assert names(found.val) == names(open_source(str(photos), split=Rule.POSITION).val)
    assert np.bincount(found.val.labels).tolist() == [2, 2]  # of 12 each
    assert found.notes[0].startswith("split by position, as in the igcv version that trained it")


def test_export_and_page_use_the_list(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(photos, tmp_path / "run")
    grow(photos)
    said: list[str] = []
    igcv.export(run.classifier, tmp_path / "a.onnx", form="dense", say=said.append)
    assert [line for line in said if line.startswith("since the start of the run: 20 new images")]
    opened: list[DataSource | None] = []
    monkeypatch.setattr("igcv.web.writer.engine_files", lambda say: [])
    monkeypatch.setattr("igcv.web.writer.validation_images", lambda source: iter(opened.append(source) or []))
    igcv.write_page(run.classifier, tmp_path / "page")
    assert names(opened[0].val) == names(run.classifier.open_data().val)


def test_a_list_that_fits_nothing(tmp_path):
    fill(tmp_path, {"photos": 1})
    rows = (ListedImage("gone.png", "x", "train"),)
    with pytest.raises(
        InputError, match=r"has none of the 1 images in list.csv, expected the images of the training run"
    ):
        open_source(f"folder:{tmp_path / 'photos'}", split=SplitList(Path("list.csv"), rows, kept=True))
