"""``pixel_nn``: nearest support image in pixel space. A floor that any learner must beat."""

from cml_bench.data.episodes import Task
from cml_bench.methods.base import Groups, Method, Scores
from cml_bench.registry import methods
from cml_bench.shapes import Labels


@methods.register("pixel_nn")
class PixelNearestNeighbour(Method):
    """Nothing is learned; a query image gets the label of the nearest support image."""

    accepts_colearner = False
    no_colearner = "it has no features for one to read"
    learns = False

    def init(self, seed: int) -> Groups:
        """No parameters."""
        return {"base": {}}

    def predict(self, task: Task) -> Labels:
        """Labels (T, n_query) by Euclidean distance of pixels."""
        distance = (
            (task.query.x.flatten(2).unsqueeze(2) - task.support.x.flatten(2).unsqueeze(1))
            .square()
            .sum(3)
        )
        return task.support.y.gather(1, distance.argmin(2))

    def evaluate(self, task: Task) -> Scores:
        """Accuracy per task; there is no loss."""
        right = (self.predict(task) == task.query.y).to(task.query.x.dtype).mean(1)
        return Scores({}, {"meta": right})
