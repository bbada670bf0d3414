"""The image sets on miniature archives in the published formats, in every edition."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.costs.describe import describe
from cml_bench.data import stored
from cml_bench.data.episodes import SPLITS, Episodes
from cml_bench.data.loader import open_data
from cml_bench.data.stored import ImageArrays, hash_images
from cml_bench.errors import UserError
from cml_bench.study import config, cost, preflight
from cml_bench.study.resolve import resolve
from tests.helpers import archives
from tests.helpers.image_sets import copies, make
from tests.helpers.plans import dumped

# name -> (id, shape, classes of each split, published images, the smallest class)
SETS = {
    "miniimagenet": ("miniimagenet/ravi/84px", (3, 84, 84), (64, 16, 20), 60_000, 600),
    "cifar_fs": ("cifar_fs/bertinetto/32px", (3, 32, 32), (64, 16, 20), 60_000, 600),
    "fc100": ("fc100/oreshkin/32px", (3, 32, 32), (60, 20, 20), 60_000, 600),
    "vgg_flower": ("vgg_flower/meta-dataset/32px", (3, 32, 32), (71, 15, 16), 8_189, 40),
}


def opened(data, folder: Path):
    return data.open(folder, torch.device("cpu"), torch.float32)


# -- what is known without files


@pytest.mark.parametrize("name", SETS)
def test_shapes_and_counts_are_known_without_files(name):
    data, (data_id, shape, counts, images, smallest) = make(name), SETS[name]
    assert data.data_id == data_id
    assert data.input_shape == shape
    assert tuple(data.class_counts.values()) == counts
    assert (data.image_count, data.smallest_class) == (images, smallest)
    described = describe("maml+cml", "conv4", name, 5, 1)
    assert described.parameters.training == {84: 203_210, 32: 189_770}[shape[1]], (
        "the paper's, to the parameter"
    )


def test_the_size_of_flowers_is_part_of_the_id():
    assert make("vgg_flower", size=84).data_id == "vgg_flower/meta-dataset/84px"
    assert make("vgg_flower", size=84).input_shape == (3, 84, 84)


def test_splits_are_those_of_their_sources():
    fs, fc, flowers = (make(name) for name in ("cifar_fs", "fc100", "vgg_flower"))
    for parts in (fs.names, fc.names, flowers.numbers):
        every = [item for names in parts.values() for item in names]
        assert len(every) == len(set(every)) == sum(map(len, parts.values()))
    assert set().union(*fs.names.values()) == set().union(*fc.names.values())
    assert sorted(set().union(*flowers.numbers.values())) == list(range(1, 103))
    lists = {name: json.loads(make(name).split_file.read_text()) for name in ("cifar_fs", "fc100")}
    assert set(lists["fc100"]["validation"]) == {
        "large_carnivores",
        "large_omnivores_and_herbivores",
        "non-insect_invertebrates",
        "small_mammals",
    }
    assert set(lists["fc100"]["test"]) == {"aquatic_mammals", "insects", "medium_mammals", "people"}
    trees = [
        {(c, n) for split in SPLITS for c, names in of[split].items() for n in names}
        for of in lists.values()
    ]
    assert trees[0] == trees[1], "both say of which superclass a class is"


# -- the arrays


@pytest.mark.parametrize("name", SETS)
def test_miniatures_are_prepared_and_say_that_they_are_not_the_original(
    name, minis, tmp_path, capsys
):
    data = make(name)
    data.prepare(tmp_path, copies(minis[name]))
    index = json.loads((data.folder(tmp_path) / "index.json").read_text())
    opened(data, tmp_path)
    assert data.arrays.images.shape == (sum(index["sizes"]), *SETS[name][1])
    assert [len(data.arrays.splits[split]) for split in SPLITS] == list(SETS[name][2])
    assert f"published are {SETS[name][3]:,}, at least {SETS[name][4]} of each" in index["differs"]
    assert index["differs"] in capsys.readouterr().err
    assert data.differs == index["differs"]
    assert data.smallest_class == min(index["sizes"]), "episodes are checked against what is there"
    with pytest.raises(UserError, match="its smallest class has"):
        Episodes(data, "test", 5, 5, 100)
    x = Episodes(data, "test", 5, 1, 2).batch(0, 3).query.x
    assert x.shape == (3, 10, *SETS[name][1])
    assert 0 <= x.min() < 0.1
    assert 0.9 < x.max() <= 1


def pixels_of(data, split: str, place: int) -> np.ndarray:
    """All images (n, C, H, W) of one class of a split."""
    number = data.arrays.splits[split][place]
    return np.asarray(
        data.arrays.images[data.starts[number] : data.starts[number] + data.arrays.sizes[number]]
    )


def test_miniimagenets_rows_are_gathered_by_class(minis, tmp_path):
    data = make("miniimagenet")
    data.prepare(tmp_path, copies(minis["miniimagenet"]))
    opened(data, tmp_path)
    first = 0
    for split, content in archives.mini_contents(each=6):
        for place, name in enumerate(sorted(content["class_dict"])):
            number = first + list(content["class_dict"]).index(name)
            assert np.array_equal(
                pixels_of(data, split, place), archives.images(number, 6, 84).transpose(0, 3, 1, 2)
            )
        first += archives.MINI[split]


def test_the_tar_and_the_pickles_are_the_same_data(minis, tmp_path):
    hashes = []
    for edition in ("miniimagenet", "tar"):
        data = make("miniimagenet")
        data.prepare(tmp_path / edition, copies(minis[edition]))
        hashes.append(opened(data, tmp_path / edition).sha256)
    assert hashes[0] == hashes[1]
    both = copies([*minis["miniimagenet"][:1], *minis["tar"]])
    with pytest.raises(
        UserError, match="files of two editions of miniimagenet: mini-imagenet-cache-train"
    ):
        make("miniimagenet").prepare(tmp_path / "both", both)


def test_a_tar_among_the_downloads_is_used(minis, tmp_path, monkeypatch):
    cls, (tar,) = registry.datasets.get("miniimagenet"), minis["tar"]
    assert cls.edition((), tmp_path) == cls.files
    assert cls.edition([tar.name], tmp_path) == cls.editions[0]
    (tmp_path / tar.name).write_bytes(b"")
    assert cls.edition((), tmp_path) == cls.editions[0]
    for file in cls.files:
        (tmp_path / file.name).write_bytes(b"")
    assert cls.edition((), tmp_path) == cls.files
    known = cls.editions[0][0]._replace(md5=hashlib.md5(tar.read_bytes()).hexdigest())
    monkeypatch.setattr(cls, "editions", ((known,),))
    downloads = tmp_path / "data" / "downloads" / "miniimagenet"
    downloads.mkdir(parents=True)
    (downloads / tar.name).write_bytes(tar.read_bytes())
    with pytest.raises(
        UserError, match=r"mini-imagenet\.tar\.gz: there are 600 images.*published are 60,000"
    ):
        make("miniimagenet").prepare(tmp_path / "data")
    assert not (tmp_path / "data" / "prepared").exists(), (
        "with the published digest it must be the published data"
    )
    (downloads / tar.name).write_bytes(b"another")
    with pytest.raises(
        UserError,
        match=r"by hand: get the file \(MD5 .*\) from https://drive.* where another file is",
    ):
        make("miniimagenet").prepare(tmp_path / "data")


def test_cifars_classes_go_by_name_and_training_images_come_first(minis, tmp_path):
    fine = sorted(set().union(*make("cifar_fs").names.values()))
    for name in ("cifar_fs", "fc100"):
        data = make(name)
        data.prepare(tmp_path, copies(minis[name]))
        opened(data, tmp_path)
        for split in SPLITS:
            for place, label in enumerate(data.names[split]):
                expected = archives.images(fine.index(label), 25, 32).transpose(0, 3, 1, 2)
                assert np.array_equal(pixels_of(data, split, place), expected)


def test_flowers_are_squashed_whole(minis, tmp_path):
    data, archive = make("vgg_flower"), dict()
    with tarfile.open(minis["vgg_flower"][0]) as tar:
        for member in tar:
            archive[member.name] = tar.extractfile(member).read()
    data.prepare(tmp_path, copies(minis["vgg_flower"]))
    opened(data, tmp_path)
    from scipy.io import loadmat

    labels = loadmat(minis["vgg_flower"][1])["labels"][0]
    number = data.numbers["test"][3]
    for image, row in zip(
        pixels_of(data, "test", 3), np.flatnonzero(labels == number), strict=True
    ):
        picture = Image.open(io.BytesIO(archive[f"jpg/image_{row + 1:05d}.jpg"]))
        assert picture.width != picture.height
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(picture.resize((32, 32))))


def test_arrays_of_anothers_copy_are_not_kept_when_it_is_no_longer_named(
    minis, tmp_path, monkeypatch
):
    data, own = make("fc100"), copies(minis["fc100"])
    data.prepare(tmp_path, own)
    monkeypatch.setattr(stored, "obtain_all", lambda *args: pytest.fail("fetched again"))
    data.prepare(tmp_path, own)
    with pytest.raises(pytest.fail.Exception):
        data.prepare(tmp_path)


def test_the_hash_covers_groups_and_leaves_old_hashes():
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    arrays = ImageArrays(images, np.array([4, 4]), {"train": np.array([0, 1])})
    old = hashlib.sha256(
        repr(images.shape).encode() + images.tobytes() + np.array([4, 4], "<i8").tobytes()
    )
    old.update(b"train" + np.array([0, 1], "<i8").tobytes())
    assert hash_images(arrays) == old.hexdigest()
    assert len({hash_images(arrays._replace(group=group)) for group in (1, 2, 4)}) == 3


# -- terms, plans


def study(**more) -> dict:
    experiment = {
        "data": "miniimagenet",
        "network": "conv4",
        "shots": [1, 5],
        "methods": {"maml": {}},
        "steps": 10,
    }
    return {"study": "s", "experiments": {"e": experiment}, **more}


def test_imagenets_terms_wait_for_the_user(minis, tmp_path, capsys):
    resolved = resolve(config.parse(study(data_dir=str(tmp_path)), "t"), "t")
    assert (
        "read ImageNet's terms of access" in preflight.blocked(resolved)["miniimagenet/ravi/84px"]
    )
    assert cost.downloads(resolved) == 1_791_769_987
    assert main(["fetch", "miniimagenet", "--data-dir", str(tmp_path)]) == 2
    assert "add miniimagenet to `acknowledged`" in capsys.readouterr().err
    with pytest.raises(UserError, match="accept_terms=True"):
        open_data("miniimagenet", tmp_path)
    tar = archives.sources({"miniimagenet": minis["tar"]})
    resolved = resolve(config.parse(study(data_dir=str(tmp_path), **tar), "t"), "t")
    assert preflight.blocked(resolved) == {}
    assert cost.downloads(resolved) == 0
    assert [file.name for file in resolved.data[0].files] == ["mini-imagenet.tar.gz"]
    (tmp_path / "plan.json").write_text(dumped(resolved))
    assert main(["fetch", "miniimagenet", "--plan", str(tmp_path / "plan.json")]) == 0
    assert open_data("miniimagenet", tmp_path).differs, "prepared already: nothing is fetched"


def test_sets_of_one_archive_share_its_download(tmp_path):
    experiments = {
        name: {"data": name, "network": "conv4", "shots": [1], "methods": {"maml": {}}, "steps": 10}
        for name in ("cifar_fs", "fc100")
    }
    resolved = resolve(
        config.parse({**study(data_dir=str(tmp_path)), "experiments": experiments}, "t"), "t"
    )
    assert cost.downloads(resolved) == 169_001_437


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ({"sha256": DIGEST}, "give either path .* or url"),
        ({"sha256": DIGEST, "path": "x", "url": "https://x/y"}, "give either path .* or url"),
        ({"sha256": DIGEST, "url": "ftp://x/y"}, "url"),
        ({"path": "x"}, "sha256"),
        ({"path": "x", "sha256": "1"}, "sha256"),
    ],
)
def test_sources_name_one_place_and_a_digest(source, pattern):
    wanted = {
        "study": "s",
        "sources": {"omniglot": {"images_background.zip": source}},
        "experiments": {
            "e": {"data": "omniglot", "network": "conv4", "shots": [1], "methods": {"maml": {}}}
        },
    }
    with pytest.raises(UserError, match=pattern) as caught:
        config.parse(wanted, "s.yaml")
    assert "sources.omniglot.images_background.zip" in str(caught.value)


# -- memory

WRITE = """
import sys
import numpy as np
from pathlib import Path
from tests.helpers import archives
first = 0
for split, count in archives.MINI.items():
    pictures = np.zeros((count * 600, 84, 84, 3), np.uint8)
    # two fifths of the bytes: as text they take two bytes, and the file has its published size
    pictures[:, :34] = 200
    rows = {f"n{first + c:08d}": list(range(c, count * 600, count)) for c in range(count)}
    content = archives.python3_pickle({"image_data": pictures, "class_dict": rows})
    (Path(sys.argv[1]) / f"mini-imagenet-cache-{split}.pkl").write_bytes(content)
    first += count
"""

PREPARE = """
import json, resource, sys
from pathlib import Path
from cml_bench import registry
from cml_bench.data.prepared import LocalCopy
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
cls = registry.datasets.get("miniimagenet")
own = {name: LocalCopy.model_validate(copy) for name, copy in json.load(open(sys.argv[1])).items()}
cls(cls.Options()).prepare(Path(sys.argv[2]), own)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_miniimagenet_at_its_full_size_is_prepared_in_less_than_4_gib(tmp_path):
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], check=True)
    train = tmp_path / "mini-imagenet-cache-train.pkl"
    assert train.stat().st_size == pytest.approx(1_145_461_190, rel=0.02)
    own = archives.sources({"miniimagenet": sorted(tmp_path.glob("*.pkl"))})["sources"][
        "miniimagenet"
    ]
    (tmp_path / "own.json").write_text(json.dumps(own))
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "own.json"), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = int(done.stdout)
    print(f"peak {peak / 2**30:.2f} GiB")
    assert peak < 4 << 30
    data = opened(make("miniimagenet"), tmp_path / "data")
    assert data.arrays.images.shape == (60_000, 3, 84, 84)
    assert data.differs == "an own copy of the data, whose digest is not a published one", (
        "its numbers are right"
    )
    assert np.array_equal(np.unique(data.arrays.images[::5000]), [0, 200])
