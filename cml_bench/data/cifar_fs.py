"""``cifar_fs``: the classes of CIFAR-100 in the few-shot split of Bertinetto et al. (2019), 64 / 16
/ 20.

The split is a random one: classes of one superclass stand on both of its sides. See
``_cifar100.py`` for the images.
"""

from pathlib import Path

from cml_bench.data._cifar100 import Cifar100
from cml_bench.registry import datasets


@datasets.register("cifar_fs")
class CifarFS(Cifar100):
    """Colour images (3, 32, 32), 600 of each class; the class split is the committed
    ``cifar_fs.json``.
    """

    split_file = Path(__file__).with_name("cifar_fs.json")
    split_id = "bertinetto"
