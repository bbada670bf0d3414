"""``fc100``: CIFAR-100 in the few-shot split of Oreshkin et al. (2018).

60 classes are for training, 20 for validation and 20 for test. The split is one of superclasses, 12
/ 4 / 4, so that training and test share as little as CIFAR-100 allows. See ``_cifar100.py`` for the
images, their source and their licence.
"""

from pathlib import Path

from cml_bench.data._cifar100 import Cifar100
from cml_bench.registry import datasets


@datasets.register("fc100")
class FC100(Cifar100):
    """Colour images (3, 32, 32), 600 of each class. ``fc100.json`` lists the class split."""

    split_file = Path(__file__).with_name("fc100.json")
    split_id = "oreshkin"
