"""``cifar_fs``: CIFAR-100 in the few-shot split of Bertinetto et al. (2019).

64 classes are for training, 16 for validation and 20 for test. The split is random, so training and
test share superclasses. See ``_cifar100.py`` for the images, their source and their licence.
"""

from pathlib import Path

from cml_bench.data._cifar100 import Cifar100
from cml_bench.registry import datasets


@datasets.register("cifar_fs")
class CifarFS(Cifar100):
    """Colour images (3, 32, 32), 600 of each class. ``cifar_fs.json`` lists the class split."""

    split_file = Path(__file__).with_name("cifar_fs.json")
    split_id = "bertinetto"
