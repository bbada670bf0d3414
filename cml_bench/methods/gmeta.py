"""``gmeta``: G-Meta (Huang and Zitnik 2020) in the variant of TLP's code.

The CML paper compares with that variant.
"""

from cml_bench.methods._nodes import NodeMethod, NodeOptions, tlp_recipe
from cml_bench.registry import methods


@methods.register("gmeta")
class GMeta(NodeMethod):
    """First-order MAML on the mean embedding of each node's two-hop subgraph.

    w_{j+1} = w_j - 0.05 * grad CE(w_j; S), j = 0..19;  outer gradient: that of CE(w_20; Q) at w_20.

    Choices. The released G-Meta is prototypical: its features do not depend on which class has
    which label, so a co-learner trained by cross-entropy could learn nothing from them. The CML
    paper names the code of TLP (Tan et al. 2022). TLP's variant has a linear head that adapts, and
    it is the one here. The preset ``official`` is the CML paper's (Adam 1e-3, 20 steps of 0.05) in
    TLP's loop: weight decay 5e-4, at most 1,000 tasks, 20 new validation tasks every 10 tasks, stop
    after 10 validations without a better one. The preset ``tlp`` is TLP's own: Adam 5e-3. TLP tests
    each new best model, so it reports the test of the best one, as here.
    """

    Options = NodeOptions
    recipe = tlp_recipe(1000)
    more_recipes = {"tlp": tlp_recipe(1000, outer_lr=5e-3)}
    network_defaults = {"readout": "subgraph"}
