"""Train, evaluate and plot one experiment: edit the parameters, then run `python experiments.py`.

Every parameter can be overridden for one run, `python experiments.py --model.k 5`; `--help` lists them all.
"""

from iwae.cli.command_line import main
from iwae.config import Data, Evaluation, Experiment, Model, Training


def experiment() -> Experiment:
    # ---- parameters ------------------------------------------------------------------ (in brackets: the paper) ----
    return Experiment(
        # Output
        name=None,  # the files lie in results_dir/name; None: named by what differs from this file as it came
        results_dir="results",
        overwrite=False,  # True: start afresh where a run of this name exists, which is moved aside
        seed=123,  # of everything random
        tasks=("train", "evaluate", "plot"),  # what is done
        data=Data(
            name="digits",  # mnist, binarized_mnist, fashion_mnist, omniglot, digits, camel, ..., FILE.npz, FILE.csv,
            #                 FOLDER/ (mnist and omniglot; binarized_mnist in the appendix)
            batch_size=20,  # examples an update (20)
            binarization="stochastic",  # stochastic, fixed, threshold, none (stochastic)
            path=None,  # folder of the downloaded datasets; None: IWAE_DATA_DIR, else the system's cache folder
        ),
        model=Model(
            # Objective
            objective="iwae",  # vae, iwae, vae_analytic_kl, renyi, miwae, piwae, ciwae (vae and iwae)
            k=50,  # importance samples an example (1, 5, 50)
            estimator="reparameterized",  # of the gradient; sampled: cheaper for large k (reparameterized)
            # Network, from the data upwards
            latent_units=(2,),  # units of each stochastic layer ((50,); (100, 50) for two layers)
            hidden_units=((200, 200),),  # tanh units below each (((200, 200),); ((200, 200), (100, 100)) for two)
            likelihood="bernoulli",  # gaussian for real numbers, discretized_logistic for 8 bits (bernoulli)
        ),
        training=Training(
            learning_rate=1e-3,  # of the first epoch (0.001)
            beta_1=0.9,  # Adam: decay of the first moment (0.9)
            beta_2=0.999,  # Adam: decay of the second moment (0.999)
            epsilon=1e-4,  # Adam: added to the root of the second moment (0.0001)
            schedule="burda",  # burda: stages of 1, 3, 9, ... epochs; cosine ends at zero and needs epochs (burda)
            stages=5,  # of schedule burda; 5 are 121 epochs (8, which are 3280 epochs)
            epochs=None,  # passes over the training examples; None: all of the stages (3280)
        ),
        evaluation=Evaluation(
            k=5000,  # importance samples an example of the reported likelihood, in nats (5000)
            splits=("test",),  # train, valid, test (test)
            examples=None,  # of each split; None: all (all)
            active_unit_threshold=0.01,  # on the variance of a unit's posterior mean over the examples (0.01)
        ),
    )
    # ---- nothing to edit below -------------------------------------------------------------------------------------


if __name__ == "__main__":
    main(experiment)
