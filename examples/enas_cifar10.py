"""ENAS on CIFAR-10 as published (Pham et al. 2018, arXiv 1802.03268), the micro space: cells by a controller.

python examples/enas_cifar10.py --data ~/data          # `--download` lets torchvision fetch the data set
python examples/enas_cifar10.py --smoke                # the same steps offline, on noise, in under a minute
tensorboard --logdir nas-experiments/enas-cifar10      # losses, the controller's reward and its entropy

In earnest it wants a GPU, and about a day. It may be killed and run again: search and training go on from their last
checkpoints. It differs from the published code in that the loose ends of a cell are concatenated without a convolution,
that its stem is that of DARTS, and that the controller is the recurrent network of `nas.strategies.PPO`.
"""

from __future__ import annotations

from functools import partial

import cifar10
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

import nas
from nas import Experiment
from nas.evaluators import Classification
from nas.model_zoo import sample_to_genotype, space
from nas.oneshot import ENAS

SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True)


def main() -> None:
    parser = cifar10.parser(__doc__, name="enas-cifar10", search_epochs=150, retrain_epochs=310)
    options = parser.parse_args()
    cells, channels, last_cells, last_channels, steps = 8, 20, 17, 36, 30
    if options.smoke:
        options.search_epochs = options.retrain_epochs = 1
        cells, channels, last_cells, last_channels, steps = 3, 4, 3, 4, 2

    # 45,000 images train the shared weights, 5,000 pay the controller.
    weights, rewards = cifar10.split(options, share=0.9, batch=160)
    evaluator = Classification(
        weights,
        rewards,
        optimizer=SGD,
        learning_rate=0.05,
        weight_decay=1e-4,
        scheduler=partial(CosineAnnealingWarmRestarts, T_0=10, T_mult=2, eta_min=5e-4),
        auxiliary_weight=0.4,
        max_epochs=options.search_epochs,
        gradient_clip_val=5.0,
        enable_progress_bar=True,
    )
    controller = ENAS(
        controller_steps=steps,
        samples_per_step=2 if options.smoke else 10,
        learning_rate=3.5e-3,
        entropy_weight=1e-4,
        baseline_decay=0.99,
        draws=4 if options.smoke else 100,
        candidates=1,
    )
    experiment = Experiment(
        space("enas_micro", channels=channels, cells=cells, auxiliary=True),
        evaluator,
        controller,
        name=options.name,
        directory=options.directory,
        seed=options.seed,
        resume=True,
    )
    experiment.run()
    found = experiment.best_trial.sample
    nas.save_sample(found, experiment.path / "best.json")
    print(sample_to_genotype(found, "enas_micro"))

    # The same cells, more and wider ones, trained from scratch on all images.
    network = space("enas_micro", channels=last_channels, cells=last_cells, auxiliary=True, drop_path=0.2).build(found)
    training = Classification(
        cifar10.loader(options, cifar10.load(options), 144, shuffle=True),
        cifar10.loader(options, cifar10.load(options, train=False, augment=False), 144, shuffle=False),
        optimizer=SGD,
        learning_rate=0.05,
        weight_decay=2e-4,
        scheduler=partial(CosineAnnealingWarmRestarts, T_0=10, T_mult=2, eta_min=1e-4),
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
