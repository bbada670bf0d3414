"""``fc100``: the classes of CIFAR-100 in the few-shot split of Oreshkin et al. (2018), 60 / 20 /
20.

The split is one of superclasses, 12 / 4 / 4, so that training and test share as little as CIFAR-100
allows. See ``_cifar100.py`` for the images.
"""

from pathlib import Path

from cml_bench.data._cifar100 import Cifar100
from cml_bench.registry import datasets


@datasets.register("fc100")
class FC100(Cifar100):
    """Colour images (3, 32, 32), 600 of each class; the class split is the committed
    ``fc100.json``.
    """

    split_file = Path(__file__).with_name("fc100.json")
    split_id = "oreshkin"
