"""``maml``: model-agnostic meta-learning (Finn, Abbeel, Levine 2017)."""

from pydantic import Field

from cml_bench import spec
from cml_bench.methods.base import Method
from cml_bench.registry import methods


class MAMLOptions(spec.Options):
    """Defaults: the recipe of the released CML and BOIL code for images."""

    inner_steps: int = Field(1, ge=0, description="k, gradient steps on the support set")
    inner_lr: float = Field(0.5, ge=0, description="alpha, their size")
    first_order: bool = Field(False, description="treat inner gradients as constants (FOMAML)")
    adapt_norm: bool = Field(
        True,
        description=(
            "whether the inner loop moves batch-norm scales and shifts: it does in the CML and BOIL"
            " code, not in the original MAML code"
        ),
    )
    inner_momentum: float = spec.added(
        0.0,
        ge=0,
        lt=1,
        description=(
            "momentum of the inner steps, which starts at rest in every task; the outer gradient"
            " passes through it. 0: plain gradient steps, as in every paper here"
        ),
    )


@methods.register("maml")
class MAML(Method):
    """All of psi and theta descend the support loss; the outer loss is the final query loss.

    w_0 = (psi, theta);  w_{j+1} = w_j - alpha * grad CE(w_j; S);  L = mean over tasks of CE(w_k; Q)

    Second order differentiates through the inner gradients; first order leaves those terms out.

    Choices. The loss is the mean over examples. The original TensorFlow code sums over the N
    classes, so its step of 0.01 is one of 0.01 * N here. The recipe is that of the released CML
    code, which is BOIL's: one step of 0.5 that also moves batch-norm's scales and shifts, and no
    clipping. The CML paper copied its MAML rows from other papers; here they are run.
    """

    Options: type[spec.Options] = MAMLOptions

    def adapts(self, name: str) -> bool:
        """Everything; without ``adapt_norm`` all but batch-norm's scales and shifts."""
        return self.options.adapt_norm or name not in self.network.norm_names
