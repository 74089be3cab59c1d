"""The keys of a summary, with their meanings."""

from __future__ import annotations

_SCORES = {
    "accuracy": "share of right answers (classification)",
    "nll": "mean negative log predictive density, nats an input",
    "brier": "squared error of the class probabilities, summed over classes (classification)",
    "ece": "expected calibration error, 15 bins of confidence (classification)",
    "ace": "adaptive calibration error, 15 bins of equally many inputs (classification)",
    "aurc": "area under the curve of error against coverage, the least sure left out first"
    " (classification)",
    "rmse": "root mean squared error of the predictive mean (continuous)",
    "crps": "continuous ranked probability score of a normal likelihood, units of y (continuous)",
    "coverage50": "share of observations in the central 50 % predictive interval (continuous)",
    "coverage90": "share of observations in the central 90 % predictive interval (continuous)",
    "pit_distance": "largest distance of the PIT's distribution from uniform (continuous)",
}
_OF_DRAWS = {
    "mutual_information": "mean mutual information of label and weights, nats (classification)",
}
_DETECTION = {
    "auroc": "area under the receiver operating characteristic",
    "aupr": "average precision, inputs from elsewhere counted as positive",
    "fpr95": "share of test inputs flagged where 95 % of the others are",
}
_PAIRS = {
    "mutual_information": "mutual information of label and draw, nats (classification)",
    "disagreement": "share of inputs with another most probable class (classification)",
    "distance": "squared distance of class probabilities, or of predictive means",
}
_SPACES = {
    "weight": "weights as sampled",
    "canonical": "canonical weights, one representative an orbit",
    "function": "log predictive density at each test input",
}

SUMMARY_KEYS: dict[str, str] = {
    "model": "name of the model",
    "likelihood": "categorical, bernoulli or continuous",
    "weights": "scalars of the posterior in each draw",
    "chains": "number of chains",
    "draws": "draws a chain, warm-up left out",
    "test.inputs": "inputs of the test split",
    **{f"test.{key}": f"posterior mean: {text}" for key, text in _SCORES.items()},
    **{f"point.{key}": f"point estimate: {text}" for key, text in _SCORES.items()},
    **{f"test.{key}": f"posterior: {text}" for key, text in _OF_DRAWS.items()},
    **{f"ood.{key}": f"detection by entropy or spread: {text}" for key, text in _DETECTION.items()},
    "ood.mutual_information": "mean mutual information on inputs from elsewhere (classification)",
    **{f"diversity.{key}": f"mean over pairs of 64 draws: {text}" for key, text in _PAIRS.items()},
    **{f"diversity.ood.{key}": f"the same elsewhere: {text}" for key, text in _PAIRS.items()},
    **{
        f"corrupted.{key}": f"mean over corruptions and severities of: {_SCORES[key]}"
        for key in ("accuracy", "nll", "brier", "ece", "rmse")
    },
    "loo.elpd": "expected log predictive density of a training row by PSIS-LOO, nats",
    "loo.se": "standard error of loo.elpd",
    "loo.parameters": "effective number of parameters, of the rows looked at",
    "loo.rows": "training rows looked at",
    "loo.unreliable": "rows whose Pareto k is too large for the number of draws",
    "psis_k.median": "median over a guide's members of the Pareto k of the importance weights",
    "psis_k.max": "its maximum",
    "stacking.effective": "effective number of chains in the mixture that predicts best",
    "stacking.nll": "negative log predictive density of that mixture, out of sample, nats",
    "diversity.correlation": "rank correlation over pairs of the distance on test inputs and"
    " elsewhere",
    **{
        f"{statistic}.{space}.{which}": f"{which} {words} over scalars of: {text}"
        for space, text in _SPACES.items()
        for statistic, words, whiches in (
            ("rhat", "rank-normalised split R-hat", ("median", "max")),
            ("ess", "bulk effective sample size", ("median", "min")),
            ("ess_tail", "tail effective sample size", ("median", "min")),
            ("mcse", "Monte-Carlo error of the mean in standard deviations", ("median", "max")),
        )
        for which in whiches
    },
    **{
        f"rhat.{space}.{rule}.{which}": f"{which} {words} over up to 200 scalars of: {text}"
        for space, text in _SPACES.items()
        for rule, words in (
            ("chainwise", "R-hat of the quarters of each chain"),
            ("nested", "nested R-hat over members"),
        )
        for which in ("median", "max")
    },
    "rhat.null.median": "median R-hat of canonical draws of the prior, the null control",
    "rhat.null.max": "maximum R-hat of canonical draws of the prior",
    **{f"scalars.{space}": f"scalars behind R-hat and ESS of: {t}" for space, t in _SPACES.items()},
    **{
        f"constant.{space}": f"scalars whose draws never change, among: {text}"
        for space, text in _SPACES.items()
    },
    **{
        f"nonfinite.{space}": f"scalars with a NaN or infinite draw, among: {text}"
        for space, text in _SPACES.items()
    },
    "ess.function.per_second": "median bulk ESS in function space a second of warm-up and sampling",
    "ess.function.per_kilogradient": "median bulk ESS in function space a 1,000 chain-gradients",
    "nan": "draws, over all chains, with a NaN or infinite weight",
    "nan.predictions": "draws, over all chains, that predict NaN or an infinite mean; the averages"
    " leave them out",
    "divergences": "divergent transitions after warm-up, over all chains",
    "acceptance": "mean acceptance rate",
    "step_size": "mean step size",
    "steps": "mean leapfrog steps a draw",
    "tree_depth.max": "deepest tree of NUTS",
    "bfmi.min": "lowest Bayesian fraction of missing information of a chain",
    "dead_chains": "chains that became NaN or infinite and are left out",
    "batching": "how many members of a guide were trained at once, and why",
    "gradients": "gradient evaluations a chain, summed over chains, warm-up included",
    "seconds": "wall-clock seconds of warm-up and sampling",
    "seconds.warmup": "wall-clock seconds of warm-up",
    "seconds.sampling": "wall-clock seconds of sampling",
    "symmetry.log_order": "natural logarithm of the order of the discrete symmetry group",
    "exchangeability.p": "least p-value that units are exchangeable, times the hidden spaces",
    "identities.p": "least p-value of the symmetry group's identities, times their number",
    "identities.z": "largest distance from an identity of the symmetry group, standard errors",
}
"""Every key that a summary may hold, with its meaning."""
