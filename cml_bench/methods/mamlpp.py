"""``mamlpp``: MAML++ (Antoniou, Edwards, Storkey, ICLR 2019)."""

from collections.abc import Iterator

from pydantic import Field
from torch import Tensor

from cml_bench import spec
from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Adapted, Groups
from cml_bench.methods.maml import MAML
from cml_bench.networks.base import Network, Param
from cml_bench.registry import methods
from cml_bench.shapes import TaskGroups, TaskParams
from cml_bench.study.protocols import Recipe

_RATE = ".inner_lr"  # suffix of a tensor's learned step sizes
# Times 1/K, the least weight of a step that is not the last. The released code has this number in
# its source and does not read its option.
_FLOOR = 0.03


class MAMLPPOptions(spec.Options):
    """Defaults: the released MiniImagenet configuration as its code reads it."""

    inner_steps: int = Field(5, ge=1, description="K, gradient steps on the support set")
    inner_lr_init: float = Field(
        0.1,
        ge=0,
        description=(
            "where the learned step sizes start: 0.1 is what the released code uses; the 0.01 of"
            " its configuration file has not been read since 2019-05"
        ),
    )
    first_order: bool = Field(
        False, description="treat inner gradients as constants in every epoch"
    )
    adapt_norm: bool = Field(
        False,
        description=(
            "whether the inner loop moves batch-norm scales and shifts; then there is one row for"
            " all steps"
        ),
    )
    learn_inner_lr: bool = Field(
        True, description="LSLR: each adapted tensor learns a step size for each inner step"
    )
    per_step_norm: bool = Field(
        True, description="BNWB: each inner step has its own batch-norm scales and shifts"
    )
    msl_epochs: int = Field(
        15,
        ge=0,
        description=(
            "MSL: epochs with a query loss after every inner step, annealed towards the last;"
            " 0: off"
        ),
    )
    first_order_to_second_order_epoch: int = Field(
        -1,
        ge=-1,
        description=(
            "DA: first order up to and including this epoch; -1: second order throughout, as"
            " released for MiniImagenet (the paper describes 50)"
        ),
    )
    epoch_steps: int = Field(
        500, ge=1, description="outer steps of an epoch; MSL and DA change between epochs"
    )


@methods.register("mamlpp")
class MAMLPlusPlus(MAML):
    """MAML with learned inner step sizes, batch-norm rows per step and a loss over all steps.

    w_{j+1}[l] = w_j[l] - eta[l][j] * grad_{w_j[l]} CE(w_j, row j; S),  j = 0..K-1

    L = sum_j v_j(e) * CE(w_{j+1}, row j; Q)  in epochs e < E
    L = CE(w_K, row K-1; Q)                   from epoch E on

    v_j     = max(1/K - e/(K*E), 0.03/K)  for j < K-1
    v_{K-1} = min(1/K + e(K-1)/(K*E), 1 - 0.03(K-1)/K)

    eta has K + 1 numbers for each adapted tensor; they are unbounded. The last number is never
    trained. It serves evaluations with more than K steps, as does the last row. The query pass
    after a step uses the row of that step. Cosine annealing and the ensemble of the best
    validations are options of the protocol (``outer_lr_min``, ``ensemble_top_k``).

    Choices. The released code keeps running statistics of batch-norm and never uses them; they are
    not here. Nor is its ``zero_grad``, which acts on nothing that is used. The co-learner is not
    released. Here phi has one row, no step sizes and no part in the inner loop. Its loss is added
    with weight v_j * gamma wherever a query loss is due. The clamp acts on phi as on the
    classifier, and CML+ averages the co-learner's logits. Step sizes are not clamped.
    """

    Options = MAMLPPOptions
    options: MAMLPPOptions
    phase: tuple[tuple[float, ...], bool]  # weights of the query losses; whether second order
    recipe = Recipe(
        steps=50_000,
        protocol={
            "meta_batch": 2,
            "val_every": 500,
            "val_tasks": 600,
            "selection": "separate",
            "ensemble_top_k": 5,
            "clamp": 10.0,
        },
        network={"filters": 48, "slope": 0.01, "init": "xavier", "inputs": "imagenet"},
    )

    def __init__(self, options: spec.Options, network: Network, kind: str):
        super().__init__(options, network, kind)
        own = self.options
        self.rows = own.inner_steps if own.per_step_norm and not own.adapt_norm else 0
        self.at_step(0)

    # -- parameters --

    @property
    def params(self) -> dict[str, Param]:
        """The network's, with K rows of batch-norm's scales and shifts, and step sizes (K+1,)."""
        own = dict(self.network.params)
        if self.rows:
            own |= {
                name: p._replace(shape=(self.rows, *p.shape))
                for name, p in own.items()
                if self._is_norm(name)
            }
        if self.options.learn_inner_lr:
            size = (self.options.inner_steps + 1,)
            rates = self.moving("meta")
            own |= {name + _RATE: Param(size, value=self.options.inner_lr_init) for name in rates}
        return own

    def _is_norm(self, name: str) -> bool:
        return name in self.network.norm_names

    def clamps(self, group: str, name: str) -> bool:
        """All but the step sizes."""
        return not name.endswith(_RATE)

    # -- schedules --

    def at_step(self, step: int) -> None:
        """Set the query losses' weights and the gradient's order for the epoch of this step."""
        epoch, options = step // self.options.epoch_steps, self.options
        weights = loss_weights(options.inner_steps, epoch, options.msl_epochs)
        self.phase = (
            weights,
            not options.first_order and epoch > options.first_order_to_second_order_epoch,
        )

    @property
    def second_order(self) -> bool:
        """Whether this epoch's outer gradient differentiates through the inner gradients."""
        return self.phase[1]

    # -- inner loop --

    def step_size(self, name: str, step: int, groups: Groups) -> float | Tensor:
        """eta[name][step], shaped to multiply the tensor (T, ...)."""
        if not self.options.learn_inner_lr:
            return self.options.inner_lr_init
        rates = groups["base"][name + _RATE]  # (T, K+1)
        dims = len(self.network.params[name].shape)
        return rates[:, min(step, rates.shape[1] - 1)].reshape(-1, *[1] * dims)

    def seen(self, params: TaskParams, step: int) -> TaskParams:
        """The parameters with row ``step`` of batch-norm's scales and shifts."""
        if not self.rows:
            return params
        row = min(step, self.rows - 1)
        return {name: p[:, row] if self._is_norm(name) else p for name, p in params.items()}

    def adapt(self, groups: TaskGroups, support: Examples) -> Iterator[Adapted]:
        """A state after every inner step whose query loss has a weight in this epoch."""
        weights, second_order = self.phase
        path = self.trajectory(groups, support, self.inner_steps, create_graph=second_order)
        for step, params in enumerate(path):
            if step and weights[step - 1]:
                yield Adapted(step, weights[step - 1], params)


def loss_weights(steps: int, epoch: int, msl_epochs: int) -> tuple[float, ...]:
    """The weights v_0 .. v_{K-1} of an epoch, which sum to 1.

    From epoch ``msl_epochs`` on, only the last query loss counts.
    """
    if epoch >= msl_epochs:
        return (0.0,) * (steps - 1) + (1.0,)
    early = max(1 / steps - epoch / (steps * msl_epochs), _FLOOR / steps)
    last = min(
        1 / steps + epoch * (steps - 1) / (steps * msl_epochs), 1 - _FLOOR * (steps - 1) / steps
    )
    return (early,) * (steps - 1) + (last,)
