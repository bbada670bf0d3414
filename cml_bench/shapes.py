"""Shapes of the tensors that data sets, networks and methods exchange.

A name of a dimension stands for the same number wherever it is used in one call:

``tasks``                          T, the tasks of a batch
``examples``                       n, the examples of a task, or all that are read at once
``way``, ``each``                  N, the classes of a task, and the examples of each
``channels``, ``height``, ``width``  of an image, or of a map before an operation
``filters``, ``rows``, ``columns``   of a map after an operation
``inputs``, ``outputs``            values of an example before and after a layer or a network
``*input``, ``*feature``, ``*target``  any further dimensions of an example
``...``                            any dimensions

Python checks none of these by itself. The tests do: see ``tests/__init__.py``.
"""

from jaxtyping import Float, Int, Shaped
from torch import Tensor

# Examples of a batch of tasks.
Inputs = Shaped[Tensor, "tasks examples *input"]
Images = Float[Tensor, "tasks examples channels height width"]
Vectors = Float[Tensor, "tasks examples inputs"]
Nodes = Int[Tensor, "tasks examples"]  # numbers of nodes of a graph
Labels = Int[Tensor, "tasks examples"]
Targets = Shaped[Tensor, "tasks examples *target"]  # labels or values

# Examples as data sets draw and read them.
DrawnNumbers = Int[Tensor, "tasks way each"]
Numbers = Int[Tensor, " examples"]
Gathered = Shaped[Tensor, "examples *input"]

# What networks make of them.
Features = Float[Tensor, "tasks examples *feature"]
Maps = Float[Tensor, "tasks examples filters rows columns"]
Outputs = Float[Tensor, "tasks examples outputs"]

Predictions = Shaped[Tensor, "examples *target"]  # labels or values of one task

# Images and maps whose tasks are folded into the channels.
Folded = Float[Tensor, "examples channels height width"]
FoldedMaps = Float[Tensor, "examples filters rows columns"]

PerTask = Float[Tensor, " tasks"]  # a loss or a score for each task

# Parameters by name, and groups of them; each task has values of its own.
TaskParams = dict[str, Float[Tensor, "tasks ..."]]
TaskGroups = dict[str, TaskParams]
