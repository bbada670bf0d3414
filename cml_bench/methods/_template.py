"""``template``: a method to start from; change what is marked (1)-(4), and this line.

The example adapts the head alone and leaves the features as they are (ANIL; Raghu et al. 2020,
section 4).
"""

from pydantic import Field

from cml_bench.methods.base import Method
from cml_bench.registry import methods
from cml_bench.spec import Options


class TemplateOptions(Options):
    """(1) What a configuration may set under ``options``.

    Every field says what it does and where it comes from.
    """

    inner_steps: int = Field(1, ge=0, description="gradient steps on the support set")
    inner_lr: float = Field(0.5, ge=0, description="their size")
    first_order: bool = Field(False, description="treat inner gradients as constants")


# (2) The name. NAME+cml exists at once unless accepts_colearner is False.
@methods.register("template")
class Template(Method):
    """(3) The algorithm as equations, with its source.

    ``version`` (1 if left out) is part of a run's id: raise it when the numbers change.
    """

    Options = TemplateOptions
    options: TemplateOptions

    def adapts(self, name: str) -> bool:
        """(4) Override what differs from MAML.

        See ``methods/base.py`` for step_size, adapt, extra_loss and meta_step.
        """
        return name in self.network.head_names
