"""Loaders: shapes, dtypes and labels as users of torchmeta and learn2learn expect them."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData

from cml_bench.data.loader import EpisodeLoader, open_data
from cml_bench.data.wrap import wrap
from cml_bench.errors import UserError


@pytest.fixture(scope="module")
def fake():
    """torchvision's FakeData with 10 classes of 12 to 28 images."""
    return wrap(FakeData(size=200, image_size=(3, 16, 18), num_classes=10, random_offset=1))


def check_torchmeta_batch(
    batch, tasks: int, way: int, shot: int, query: int, image: tuple[int, ...]
) -> None:
    """Check what torchmeta promises of BatchMetaDataLoader's batches."""
    assert set(batch) == {"train", "test"}
    for part, each in (("train", shot), ("test", query)):
        inputs, targets = batch[part]
        assert inputs.shape == (tasks, way * each, *image)
        assert inputs.dtype == torch.float32
        assert inputs.min() >= 0
        assert inputs.max() <= 1
        assert targets.shape == (tasks, way * each)
        assert targets.dtype == torch.int64
        for row in targets:
            assert torch.equal(torch.bincount(row, minlength=way), torch.full((way,), each))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_batches_have_torchmetas_format(fake, split):
    loader = EpisodeLoader(fake, way=5, shot=2, query=3, batch_size=4, split=split, batches=3)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        check_torchmeta_batch(batch, 4, 5, 2, 3, (3, 16, 18))


def test_a_torchmeta_training_loop_runs_unchanged(fake):
    """The loop's body is from torchmeta's documentation; only the loader differs."""
    dataloader = EpisodeLoader(fake, way=5, shot=1, query=2, batch_size=3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 18, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[1].weight.detach().clone()
    for batch_idx, batch in enumerate(dataloader):
        train_inputs, train_targets = batch["train"]
        test_inputs, test_targets = batch["test"]
        outer_loss = torch.zeros(())
        for inputs, targets, _, _ in zip(
            train_inputs, train_targets, test_inputs, test_targets, strict=True
        ):
            outer_loss = outer_loss + torch.nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        outer_loss.backward()
        optimizer.step()
        if batch_idx >= 1:
            break
    assert not torch.equal(model[1].weight, before)


def test_learn2learn_rows_are_class_by_class_with_support_first(fake):
    loader = EpisodeLoader(fake, way=4, shot=2, query=3, batch_size=2, split="test")
    batch = next(iter(loader))
    tasks = list(itertools.islice(loader.as_learn2learn(), 2))
    for t, (data, labels) in enumerate(tasks):
        assert data.shape == (4 * 5, 3, 16, 18)
        assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
        rows = data.unflatten(0, (4, 5))
        assert torch.equal(rows[:, :2].flatten(0, 1), batch["train"][0][t])
        assert torch.equal(rows[:, 2:].flatten(0, 1), batch["test"][0][t])


def test_labels_are_those_of_the_source():
    """Images of class c are filled with c: a task's inputs tell the class of each label."""
    source = [(np.full((16, 16), 10 * c, np.uint8), c) for c in (3, 1, 2, 5) for _ in range(6)]
    for x, _ in source:
        x[0] = 200  # a class whose images have one value only is refused
    data = wrap(source)
    data.pixels = data.pixels[:, :, 1:]
    for batch in EpisodeLoader(data, way=3, shot=2, query=4, batch_size=5, batches=4):
        (xs, ys), (xq, yq) = batch["train"], batch["test"]
        for task in range(5):
            meaning = {int(y): float(x.unique()) for x, y in zip(xs[task], ys[task], strict=True)}
            assert len(set(meaning.values())) == 3
            assert all(
                float(x.unique()) == meaning[int(y)]
                for x, y in zip(xq[task], yq[task], strict=True)
            )


def test_wrap_reads_every_kind_of_image_alike():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack((grey, grey.T, grey), 2)
    kinds = [
        (grey, (1, 16, 16)),
        (Image.fromarray(grey), (1, 16, 16)),
        (torch.from_numpy(grey)[None] / 255, (1, 16, 16)),
        (rgb, (3, 16, 16)),
        (Image.fromarray(rgb), (3, 16, 16)),
        (torch.from_numpy(rgb.transpose(2, 0, 1).copy()), (3, 16, 16)),
    ]
    for x, shape in kinds:
        images = wrap([(x, 0), (x, 1)]).arrays.images
        assert images.shape == (2, *shape)
        assert np.array_equal(images[1], grey[None] if shape[0] == 1 else rgb.transpose(2, 0, 1))


def test_wrap_takes_splits_and_refuses_nonsense():
    source = [
        (np.arange(256, dtype=np.uint8).reshape(16, 16), c) for c in (7, 8, 9) for _ in range(2)
    ]
    data = wrap(source, {"train": [7], "validation": [8], "test": [9]})
    assert data.class_counts == {"train": 1, "validation": 1, "test": 1}
    assert data.arrays.splits["test"].tolist() == [2]
    with pytest.raises(UserError, match=r"the test split names classes that no image has: \[4\]"):
        wrap(source, {"test": [4]})
    with pytest.raises(UserError, match="image 1 has shape"):
        wrap([(np.zeros((4, 4), np.uint8), 0), (np.zeros((4, 5), np.uint8), 0)])
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        wrap([(torch.full((1, 4, 4), -0.5), 0)])
    with pytest.raises(UserError, match="no images"):
        wrap([])


def test_the_id_of_a_wrapped_set_is_its_content(fake):
    source = [(np.diag(np.full(16, c + 2, np.uint8)), c) for c in (0, 1, 2) for _ in range(3)]
    assert wrap(source).data_id == wrap(source).data_id
    assert (
        wrap(source).data_id != wrap(source, {"train": [0], "validation": [1], "test": [2]}).data_id
    )


def test_training_loaders_have_no_end(fake):
    with pytest.raises(TypeError, match="no end"):
        len(EpisodeLoader(fake, 2, 1, 1))


def test_data_sets_are_opened_by_name(tmp_path):
    data = open_data("glyphs", tmp_path, size=16)
    check_torchmeta_batch(next(iter(EpisodeLoader(data, 5, 1, 5))), 4, 5, 1, 5, (1, 16, 16))
    assert len(list(tmp_path.rglob("images.npy"))) == 1


def test_a_second_epoch_has_new_training_tasks_and_the_same_test_tasks(fake):
    for split, new in (("train", True), ("test", False)):
        loader = EpisodeLoader(fake, 3, 1, 1, split=split, batches=2)
        epochs = [[batch["train"][0] for batch in loader] for _ in range(2)]
        assert torch.equal(epochs[0][0], epochs[1][0]) != new
