"""Task "posterior": the true posterior of chosen inputs beside draws of q and of q_IW, for models of any size."""

from typing import Any

from matplotlib.figure import Figure

from iwae.diagnostics import annealing, grid
from iwae.figures.posterior import chosen_inputs, latent_pairs_of, posterior_input_of
from iwae.runs.run import Run

ENTRIES = ("posterior",)  # of evaluation.json
MIXED = 1.1  # a common limit of R-hat, for chains that mix


def run(run: Run) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Hamiltonian Monte Carlo, and quadrature where there are one or two latent units.

    -> the entries of evaluation.json and the figures, by name.
    """
    numbers, seed, settings = chosen_inputs(run), run.experiment.seed, run.experiment.evaluation
    images, chains = run.images("test")[numbers], 32
    truth = annealing.hamiltonian_monte_carlo(
        run.model, images, chains, 25, seed, steps=settings.ais_steps, label="Hamiltonian Monte Carlo"
    )
    entry = {
        "inputs": numbers.tolist(),
        "hmc_chains": chains,
        "annealing_steps": settings.ais_steps,
        "acceptance": truth.acceptance.tolist(),
        "r_hat": truth.r_hat.tolist(),
    }
    made = latent_pairs_of(run, numbers, truth.latents, truth.r_hat)
    if grid.applies(run.model):
        grids = grid.on_grid(run.model, images, seed)
        entry["log_likelihood"] = [one.log_evidence for one in grids]
        entry["kl"] = {str(k): [one.kl[k] for one in grids] for k in grids[0].kl}
        made |= posterior_input_of(run, numbers, grids)
    return {"posterior": entry}, made


def told(entries: dict[str, Any]) -> list[str]:
    """What `run` measured, in a few lines for the terminal."""
    found = entries["posterior"]
    largest = max(found["r_hat"])
    lines = [f"posterior of {len(found['inputs'])} test examples: R-hat of the chains at most {largest:.2f}"]
    if largest > MIXED:
        lines.append(f"  above {MIXED} chains mix slowly, or stay in a mode, of which each has its share of them")
    if "kl" in found:
        means = ", ".join(f"k = {k}: {sum(values) / len(values):.2f}" for k, values in found["kl"].items())
        lines.append(f"  mean KL divergence of q_IW from the truth, in nats: {means}")
    return lines
