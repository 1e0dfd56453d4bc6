"""A search without a network: one to three steps of preprocessing, then a classifier, each with its own choices."""

import sys

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectPercentile
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from nas import Experiment, Integer, Real, ValueChoice, search_space
from nas.evaluators import FunctionalEvaluator
from nas.strategies import TPE


def step(name: str) -> object:
    kind = ValueChoice(["scale", "project", "select"], label=name)
    if kind == "project":
        return PCA(ValueChoice(Integer(8, 40), label=f"{name}.size"), whiten=True)
    if kind == "select":
        return SelectPercentile(percentile=ValueChoice(Integer(50, 95), label=f"{name}.percentile"))
    return StandardScaler()


def pipeline() -> Pipeline:
    steps = [step(f"step{i}") for i in range(ValueChoice([1, 2, 3], label="steps"))]
    if ValueChoice(["svc", "forest"], label="classifier") == "svc":
        return make_pipeline(*steps, SVC(C=ValueChoice(Real(0.1, 100, log=True), label="C")))
    return make_pipeline(*steps, RandomForestClassifier(ValueChoice([20, 50, 100], label="trees"), random_state=0))


if __name__ == "__main__":
    evaluator = FunctionalEvaluator(lambda model: cross_val_score(model, *load_digits(return_X_y=True), cv=3).mean())
    experiment = Experiment(search_space(pipeline), evaluator, TPE(), name="pipeline", resume=True)
    experiment.run(max_trials=int(*sys.argv[1:]) or 30)
    print(f"{experiment.best_trial.value:.3f} with {experiment.export_top_models(1, 'model')[0]}")
