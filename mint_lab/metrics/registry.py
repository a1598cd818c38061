r"""Every metric that the package reports, described once: :data:`METRICS`.

The page's tooltips, the charts, the command line and the documentation read a metric's definition, unit and range from
here. This module imports neither torch nor pandas. The functions that compute the numbers are in
:mod:`mint_lab.metrics.preference`, :mod:`mint_lab.metrics.policy` and :mod:`mint_lab.metrics.rollout`; losses and
trainers report further ones.

Notation in the definitions. Tokens of weight 0 are left out of every number.

==========  ============================================================================================================
``log p``   log-probability of a token under the model being trained (the trainer), nats
``log q``   the same under the model that sampled the token (the sampler)
``r``       ``exp(log p - log q)``, the importance ratio, not clipped
``A``       the token's advantage
``s``       log-probability of a whole completion, the weighted sum of its tokens' ``log p``
``s_ref``   ``s`` under the model before training (the reference)
==========  ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ConfigError

__all__ = ["METRICS", "MetricSpec", "metric", "register_metric"]

HELD_OUT = "held_out/"

SHARE = (0.0, 1.0)
NOT_NEGATIVE = (0.0, None)
NOT_POSITIVE = (None, 0.0)


@dataclass(frozen=True)
class MetricSpec:
    """What a metric means.

    Attributes:
        name: Key in a record's ``metrics``, without ``held_out/``.
        definition: One sentence of plain text with the formula in plain characters. The page shows it as a tooltip.
        unit: For example ``"nats"`` or ``"share of pairs"``; ``""`` for a number without a unit.
        range: Lowest and highest possible value, ``None`` at an open end; ``None`` if every number is possible. A value
            may exceed it by float32 rounding.
        also_called: Names of the same number in other tools, with the tool in parentheses.
        formula: The formula as LaTeX without dollar signs, or ``""``.

    Raises:
        ConfigError: If ``name`` or ``definition`` is empty, ``name`` begins with ``held_out/``, or ``range`` is not an
            ordered pair.
    """

    name: str
    definition: str
    unit: str = ""
    range: tuple[float | None, float | None] | None = None
    also_called: tuple[str, ...] = ()
    formula: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(HELD_OUT):
            raise ConfigError(
                f"metric name {self.name!r}: expected a name without {HELD_OUT!r}; a held-out metric has the "
                "definition of its training metric"
            )
        if not self.definition.strip():
            raise ConfigError(f"metric {self.name!r}: the definition is empty; say in one sentence what it measures")
        if self.range is not None:
            if len(self.range) != 2:
                raise ConfigError(f"metric {self.name!r}: range is {self.range!r}, expected a pair (low, high)")
            low, high = self.range
            if low is not None and high is not None and not low < high:
                raise ConfigError(f"metric {self.name!r}: range is {self.range!r}, expected low < high")


def register_metric(spec: MetricSpec) -> MetricSpec:
    """Add a metric to :data:`METRICS`, so that charts, tooltips and tables describe it.

    A metric without a spec is still recorded and drawn, under its name alone.

    Args:
        spec: Its description. Registering an equal spec again has no effect.

    Returns:
        ``spec``.

    Raises:
        ConfigError: If another spec has that name.
    """
    known = _METRICS.setdefault(spec.name, spec)
    if known != spec:
        raise ConfigError(
            f"metric {spec.name!r} is already defined as {known.definition!r}; choose another name for "
            f"{spec.definition!r}"
        )
    return spec


def metric(name: str) -> MetricSpec | None:
    """Return the spec of a metric or of its held-out twin (``held_out/`` in front), or None if it is unknown."""
    return _METRICS.get(name.removeprefix(HELD_OUT))


_METRICS: dict[str, MetricSpec] = {}

METRICS: Mapping[str, MetricSpec] = MappingProxyType(_METRICS)
"""Metric name -> :class:`MetricSpec`, in the order in which the documentation lists them. Read-only; see
:func:`register_metric`."""

_TRAINING = (
    MetricSpec(
        "loss",
        "Value of the loss on the batch, as the loss defines it.",
        "nats",
    ),
    MetricSpec(
        "grad_norm",
        "Euclidean norm of the gradient of all trained weights, before clipping: sqrt(sum g^2).",
        range=NOT_NEGATIVE,
        formula=r"\lVert g \rVert_2",
    ),
    MetricSpec(
        "learning_rate",
        "Learning rate of the step, after warm-up and schedule.",
        range=NOT_NEGATIVE,
        formula=r"\eta_t",
    ),
    MetricSpec(
        "nll",
        "Negative log-likelihood of the trained tokens: -sum(w log p) / sum(w).",
        "nats a token",
        NOT_NEGATIVE,
        ("nll_loss (TRL)",),
        r"-\tfrac{\sum_t w_t \log p_t}{\sum_t w_t}",
    ),
    MetricSpec(
        "tokens_per_s",
        "Model input tokens of the batch divided by the time of the whole step, evaluation excluded.",
        "tokens a second",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "step_time",
        "Wall-clock time of the whole step, with sampling and grading but without an evaluation after it.",
        "seconds",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "time",
        "Time since the run started, without pauses.",
        "seconds",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "tokens",
        "Model input tokens of the step's batch, prompts included.",
        "tokens",
        NOT_NEGATIVE,
    ),
)

_PAIRS = (
    MetricSpec(
        "pair_accuracy",
        "Share of pairs with s_chosen - s_rejected > 0; a tie does not count as a win.",
        "share of pairs",
        SHARE,
        ("rewards/accuracies (TRL's CPO, ORPO and SimPO)",),
        r"\tfrac1n \sum 1[s_\text{chosen} > s_\text{rejected}]",
    ),
    MetricSpec(
        "mean_margin",
        "Mean over pairs of s_chosen - s_rejected; a loss without a reference reports its own margin instead, for "
        "example times beta or per token.",
        "nats",
        None,
        ("rewards/margins (TRL's CPO, ORPO and SimPO)",),
        r"\tfrac1n \sum (s_\text{chosen} - s_\text{rejected})",
    ),
    MetricSpec(
        "logps/chosen",
        "Mean log-probability of a chosen (desirable) completion: mean of s_chosen = sum(w log p).",
        "nats",
        NOT_POSITIVE,
        formula=r"\tfrac1n \sum s_\text{chosen}",
    ),
    MetricSpec(
        "logps/rejected",
        "Mean log-probability of a rejected (undesirable) completion: mean of s_rejected = sum(w log p).",
        "nats",
        NOT_POSITIVE,
        formula=r"\tfrac1n \sum s_\text{rejected}",
    ),
    MetricSpec(
        "displacement_frac",
        "Share of pairs whose margin s_chosen - s_rejected rose since step 0 while s_chosen fell.",
        "share of pairs",
        SHARE,
        ("likelihood displacement (Razin et al. 2024)",),
    ),
    MetricSpec(
        "rewards/chosen",
        "Mean implied reward of a chosen (desirable) completion: mean of beta (s - s_ref).",
        "nats times beta",
        None,
        ("chosen_reward (Tinker)",),
        r"\tfrac{\beta}{n} \sum (s - s_\text{ref})_\text{chosen}",
    ),
    MetricSpec(
        "rewards/rejected",
        "Mean implied reward of a rejected (undesirable) completion: mean of beta (s - s_ref).",
        "nats times beta",
        None,
        ("rejected_reward (Tinker)",),
        r"\tfrac{\beta}{n} \sum (s - s_\text{ref})_\text{rejected}",
    ),
    MetricSpec(
        "rewards/margins",
        "Mean implied reward beta (s - s_ref) of chosen (desirable) minus that of rejected (undesirable) completions.",
        "nats times beta",
        None,
        ("margin (Tinker)",),
        r"\tfrac{\beta}{n} \sum (h_\text{chosen} - h_\text{rejected}),\quad h = s - s_\text{ref}",
    ),
    MetricSpec(
        "rewards/accuracies",
        "Share of pairs whose chosen completion has the larger implied reward beta (s - s_ref); a difference that "
        "rounding alone explains counts one half, so training starts at 0.5.",
        "share of pairs",
        SHARE,
        ("accuracy (Tinker)",),
    ),
    MetricSpec(
        "rewards/auc",
        "Share of the couples of one desirable and one undesirable completion, of any two prompts, in which the "
        "desirable one has the larger implied reward beta (s - s_ref), whatever beta > 0; a tie counts one half, and "
        "the reference of the held-out value is the model before the run.",
        "share of couples",
        SHARE,
        ("area under the ROC curve",),
        r"\tfrac{1}{n_+ n_-} \sum 1[h_+ > h_-] + \tfrac12 1[h_+ = h_-],\quad h = s - s_\text{ref}",
    ),
    MetricSpec(
        "rewards/shift",
        "Half the sum of the mean implied rewards of chosen (desirable) and of rejected (undesirable) completions: bco "
        "subtracts it from each reward; 0 for a batch that has only one kind.",
        "nats times beta",
        None,
        ("delta (TRL, a mean over all batches so far)",),
        r"\delta = \tfrac{\beta}{2} (\bar h_\text{chosen} + \bar h_\text{rejected})",
    ),
)

_POLICY = (
    MetricSpec(
        "ratio/mean",
        "Mean over tokens of the unclipped importance ratio r = exp(log p - log q); of the sample's ratio in gspo.",
        range=NOT_NEGATIVE,
        also_called=("sampling/importance_sampling_ratio/mean (TRL)",),
        formula=r"\overline{r},\quad r = e^{\log p - \log q}",
    ),
    MetricSpec(
        "ratio/min",
        "Smallest unclipped importance ratio r = exp(log p - log q) of the tokens.",
        range=NOT_NEGATIVE,
        also_called=("sampling/importance_sampling_ratio/min (TRL)",),
        formula=r"\min_t r_t",
    ),
    MetricSpec(
        "ratio/max",
        "Largest unclipped importance ratio r = exp(log p - log q) of the tokens.",
        range=NOT_NEGATIVE,
        also_called=("sampling/importance_sampling_ratio/max (TRL)",),
        formula=r"\max_t r_t",
    ),
    MetricSpec(
        "clip_frac/low",
        "Share of tokens on which the lower clip is active: r < low and A < 0.",
        "share of tokens",
        SHARE,
        ("clip_ratio/low_mean (TRL)",),
        r"\overline{1[r < lo,\ A < 0]}",
    ),
    MetricSpec(
        "clip_frac/high",
        "Share of tokens on which the upper clip is active: r > high and A > 0.",
        "share of tokens",
        SHARE,
        ("clip_ratio/high_mean (TRL)",),
        r"\overline{1[r > hi,\ A > 0]}",
    ),
    MetricSpec(
        "out_of_range_frac",
        "Share of tokens with r outside [low, high], whatever the sign of A; [0.8, 1.2] for a loss without a clip.",
        "share of tokens",
        SHARE,
        formula=r"\overline{1[r \notin [lo, hi]]}",
    ),
    MetricSpec(
        "kl/k1",
        "Estimate of KL(sampler || trainer) on the sampler's tokens: mean of -log r.",
        "nats a token",
        None,
        ("optim/kl_sample_train_v1 (Tinker)",),
        r"\overline{-\log r}",
    ),
    MetricSpec(
        "kl/k2",
        "Estimate of KL(sampler || trainer) on the sampler's tokens: mean of (log r)^2 / 2.",
        "nats a token",
        NOT_NEGATIVE,
        ("optim/kl_sample_train_v2 (Tinker)",),
        r"\tfrac12 \overline{\log^2 r}",
    ),
    MetricSpec(
        "kl/k3",
        "Estimate of KL(sampler || trainer) on the sampler's tokens: mean of r - 1 - log r.",
        "nats a token",
        NOT_NEGATIVE,
        formula=r"\overline{r - 1 - \log r}",
    ),
    MetricSpec(
        "ess",
        "Effective sample size of the importance ratios, as a share of the tokens: 1 / mean(w^2), w = r / mean(r).",
        "share",
        SHARE,
        ("rollout_is_eff_sample_size (verl)",),
        r"1 / \overline{w^2},\quad w = r / \overline{r}",
    ),
    MetricSpec(
        "entropy_est",
        "Estimate of the sampler's entropy: mean of -log q over its tokens.",
        "nats a token",
        NOT_NEGATIVE,
        ("optim/entropy (Tinker)",),
        r"\overline{-\log q}",
    ),
    MetricSpec(
        "kl/reference",
        "Estimate of the divergence from the reference, by default the model at the start of the run: in grpo, for "
        "KL(trainer || reference) a token, the "
        "mean of exp(u) - u - 1 with u = log p_ref - log p; in kto, a completion, max(0, mean of s - s_ref).",
        "nats",
        NOT_NEGATIVE,
        ("kl (TRL)",),
        r"\overline{e^u - u - 1},\quad u = \log p_\text{ref} - \log p",
    ),
    MetricSpec(
        "kl/teacher",
        "Estimate of KL(trainer || teacher) in distillation: mean of log p - log p_teacher.",
        "nats a token",
        None,
        ("teacher_kl (Tinker, of the sampler)",),
        r"\overline{\log p - \log p_\text{teacher}}",
    ),
    MetricSpec(
        "kl_base/k1",
        "Estimate of KL(trainer || reference), by default the model at the start of the run: mean of log p - log "
        "p_base, exact in expectation for on-policy tokens.",
        "nats a token",
        None,
        ("kl_policy_base (Tinker, of the sampler)",),
        r"\overline{\log p - \log p_\text{base}}",
    ),
    MetricSpec(
        "kl_base/k2",
        "Estimate of KL(trainer || reference): mean of (log p - log p_base)^2 / 2 over on-policy tokens.",
        "nats a token",
        NOT_NEGATIVE,
        formula=r"\tfrac12 \overline{(\log p - \log p_\text{base})^2}",
    ),
    MetricSpec(
        "kl_base/k3",
        "Estimate of KL(trainer || reference): mean of exp(u) - u - 1, u = log p_base - log p, over on-policy tokens.",
        "nats a token",
        NOT_NEGATIVE,
        ("kl (TRL)",),
        r"\overline{e^u - u - 1},\quad u = \log p_\text{base} - \log p",
    ),
    MetricSpec(
        "mismatch/mean",
        "Mean of |log p - log q| when trainer and sampler have the same weights: what arithmetic, temperature or "
        "truncation puts between the two.",
        "nats",
        NOT_NEGATIVE,
        ("sampling/sampling_logp_difference/mean (TRL)",),
        r"\overline{|\log p - \log q|}",
    ),
    MetricSpec(
        "mismatch/max",
        "Largest |log p - log q| of a token when trainer and sampler have the same weights.",
        "nats",
        NOT_NEGATIVE,
        ("sampling/sampling_logp_difference/max (TRL)",),
        r"\max_t |\log p_t - \log q_t|",
    ),
    MetricSpec(
        "unmasked_prompt_frac",
        "Share of trained tokens that belong to the prompt, reported when the datums have no weights.",
        "share of tokens",
        SHARE,
    ),
)

_ROLLOUT = (
    MetricSpec(
        "reward",
        "Mean reward of all completions of the rollout.",
        also_called=("env/all/reward/total (Tinker)",),
        formula=r"\overline{R}",
    ),
    MetricSpec(
        "reward_std",
        "Standard deviation of the rewards of all completions: sqrt(sum (R - mean)^2 / (n - 1)).",
        range=NOT_NEGATIVE,
    ),
    MetricSpec(
        "group_std",
        "Mean over groups of the standard deviation of the rewards within a group, over n - 1.",
        range=NOT_NEGATIVE,
    ),
    MetricSpec(
        "frac_reward_zero_std",
        "Share of groups whose rewards are all equal, so that every advantage in the group is 0.",
        "share of groups",
        SHARE,
    ),
    MetricSpec(
        "completion_length",
        "Mean length of a completion, its end-of-turn token included.",
        "tokens",
        NOT_NEGATIVE,
        ("completions/mean_length (TRL)",),
    ),
    MetricSpec(
        "truncated_frac",
        "Share of completions that reached max_tokens before they ended.",
        "share of completions",
        SHARE,
        ("completions/clipped_ratio (TRL)",),
    ),
    MetricSpec(
        "sampling_time",
        "Time in which the rollout's completions were sampled, grading excluded.",
        "seconds",
        NOT_NEGATIVE,
    ),
)

_CLIENT = (
    MetricSpec(
        "loss:sum",
        "Value of the loss in the training client's answer, summed over micro-batches.",
        "nats",
    ),
    MetricSpec(
        "time:sum",
        "Time that the training client took for the call.",
        "seconds",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "passes:max",
        "Backbone forward passes for the call, in units of the whole batch.",
        "passes",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "micro_batches:max",
        "Number of micro-batches that the training client split the batch into.",
        "micro-batches",
        NOT_NEGATIVE,
    ),
    MetricSpec(
        "oom_retries:sum",
        "Number of times the call ran out of memory and was retried with smaller micro-batches.",
        "retries",
        NOT_NEGATIVE,
    ),
)

for _spec in (*_TRAINING, *_PAIRS, *_POLICY, *_ROLLOUT, *_CLIENT):
    register_metric(_spec)
