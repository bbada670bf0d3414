"""Methods, data sets and networks as people write them, in place of their keys.

What is not listed, as a plug-in, keeps its key. So a new method needs no line here. It imports no
torch.
"""

import re

from cml_bench.registry import CML

TITLES = {
    "amazon_computer": "Amazon-Computer",
    "amm_gnn": "AMM-GNN",
    "anil": "ANIL",
    "boil": "BOIL",
    "cavia": "CAVIA",
    "cifar_fs": "CIFAR-FS",
    "citeseer": "CiteSeer",
    "cl": "CL",
    "conv4": "Conv4",
    "corafull": "CoraFull",
    "fc100": "FC100",
    "fomaml": "first-order MAML",
    "gcn": "GCN",
    "glyphs": "glyphs",
    "gmeta": "G-Meta",
    "image_folder": "own images",
    "maml": "MAML",
    "mamlpp": "MAML++",
    "metasgd": "Meta-SGD",
    "miniimagenet": "MiniImagenet",
    "mlp": "MLP",
    "more_maml": "More-MAML",
    "omniglot": "Omniglot",
    "pixel_nn": "nearest neighbour of pixels",
    "protonet": "ProtoNet",
    "reptile": "Reptile",
    "resnet12": "ResNet-12",
    "sbm": "generated graph",
    "sharp_maml": "Sharp-MAML",
    "sinusoid": "sinusoids",
    "vgg_flower": "VGG Flower",
}
_KEY = re.compile(rf"\b[a-z]\w*(?:{re.escape(CML)}\b)?")


def of(key: str) -> str:
    """``MAML``, ``MAML + CML``, ``CiteSeer``; a key without a title is its own."""
    if key.endswith(CML):
        return f"{of(key.removesuffix(CML))} + CML"
    return TITLES.get(key, key)


def within(text: str) -> str:
    """A text that was made of keys, with titles in their places."""
    return _KEY.sub(lambda word: of(word[0]), text)
