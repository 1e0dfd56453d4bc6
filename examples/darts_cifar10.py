"""DARTS on CIFAR-10 as published (Liu et al. 2019, arXiv 1806.09055): a search of cells, then a network of 20 of them.

python examples/darts_cifar10.py --data ~/data          # `--download` lets torchvision fetch the data set
python examples/darts_cifar10.py --smoke                # the same steps offline, on noise, in under a minute
tensorboard --logdir nas-experiments/darts-cifar10      # losses, architecture parameters and their entropy

In earnest it wants a GPU, and about two days. It may be killed and run again: search and training go on from their last
checkpoints. It differs from the published code in that pooling has no batch norm behind it in the search.
"""

from __future__ import annotations

from functools import partial

import cifar10
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

import nas
from nas import Experiment
from nas.evaluators import Classification
from nas.model_zoo import sample_to_genotype, space
from nas.oneshot import DARTS

SGD = partial(torch.optim.SGD, momentum=0.9)


def main() -> None:
    parser = cifar10.parser(__doc__, name="darts-cifar10", search_epochs=50, retrain_epochs=600)
    parser.add_argument("--unrolled", action="store_true", help="second order: better by the paper, and slower")
    options = parser.parse_args()
    cells, channels, last_cells, last_channels = 8, 16, 20, 36
    if options.smoke:
        options.search_epochs = options.retrain_epochs = 1
        cells, channels, last_cells, last_channels = 3, 4, 3, 4

    # Section A.1.1: half of the images train the weights, the others the architecture.
    weights, architecture = cifar10.split(options, share=0.5, batch=64)
    evaluator = Classification(
        weights,
        architecture,
        optimizer=SGD,
        learning_rate=0.025,
        weight_decay=3e-4,
        scheduler=partial(CosineAnnealingLR, T_max=options.search_epochs, eta_min=0.001),
        max_epochs=options.search_epochs,
        gradient_clip_val=5.0,
        enable_progress_bar=True,
    )
    experiment = Experiment(
        space("darts", none=True, channels=channels, cells=cells),
        evaluator,
        DARTS(unrolled=options.unrolled, learning_rate=3e-4, weight_decay=1e-3, candidates=1),
        name=options.name,
        directory=options.directory,
        seed=options.seed,
        resume=True,
    )
    experiment.run()
    found = experiment.best_trial.sample
    nas.save_sample(found, experiment.path / "best.json")
    print(sample_to_genotype(found, "darts"))

    # Section A.1.2: the same cells, more and wider ones, trained from scratch on all images.
    network = space("darts", channels=last_channels, cells=last_cells, auxiliary=True, drop_path=0.2).build(found)
    training = Classification(
        cifar10.loader(options, cifar10.load(options, cutout=16), 96, shuffle=True),
        cifar10.loader(options, cifar10.load(options, train=False, augment=False), 96, shuffle=False),
        optimizer=SGD,
        learning_rate=0.025,
        weight_decay=3e-4,
        scheduler=partial(CosineAnnealingLR, T_max=options.retrain_epochs),
        auxiliary_weight=0.4,
        max_epochs=options.retrain_epochs,
        gradient_clip_val=5.0,
        callbacks=cifar10.GrowingDropPath(0.2),
        enable_progress_bar=True,
    )
    metrics = cifar10.train_alone(network, training, experiment.path / "retrained")
    print(f"test accuracy: {metrics['accuracy']:.2%}")


if __name__ == "__main__":
    main()
