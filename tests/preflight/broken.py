"""Losses with one mistake each, as cells that a person could write.

Each has the one line of preflight that names the mistake: its name, words of what was found, words of what to change.
``at_run`` is what a run says of it when it was registered without being checked.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

HEAD = """\
import random
import sys
import threading
import time
import torch
import torch.nn.functional as F
from mint_lab.losses.preference import pairwise_preference_loss, sequence_scores

kept = []
generator = random.Random(0)
gate = threading.Lock()  # code in C waits in gate.acquire() until a test releases the gate
gate.acquire()

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient  # the derivative is 2 x

def total(logprobs_list):
    return torch.stack([lp.sum() for lp in logprobs_list]).sum()

def weighted(data, logprobs_list):
    return sum((d.loss_fn_inputs["weights"].to_torch() * lp).sum() for d, lp in zip(data, logprobs_list, strict=True))

"""


@dataclass(frozen=True)
class Broken:
    """A mistake, and what is said of it."""

    body: str
    line: str
    found: str
    fix: str
    at_run: str | None = None  # None: nothing a trainer could see

    @property
    def cell(self) -> str:
        """The cell; the function is called ``mine``."""
        if self.body.startswith("def mine"):
            return HEAD + self.body
        return (
            HEAD
            + "def mine(data, logprobs_list):\n"
            + textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
            + "\n"
        )


# What fails: a cell with such a loss registers nothing.
REFUSED: dict[str, Broken] = {
    "returns a tensor": Broken(
        "return total(logprobs_list)", "returns", "returned a Tensor", "return loss, metrics", "returned a Tensor"
    ),
    "returns None": Broken("pass", "returns", "returned a NoneType", "return loss, metrics", "returned a NoneType"),
    "returns three": Broken(
        "return total(logprobs_list), {}, 1", "returns", "a tuple of 3", "return loss, metrics", "a tuple of 3"
    ),
    "returns a float": Broken(
        "return total(logprobs_list).item(), {}", "loss", "a float", "without float()", "is a float"
    ),
    "not a scalar": Broken(
        "return logprobs_list[0] * 2, {}", "loss", "has shape (", ".sum() or .mean()", "reduce it to a scalar"
    ),
    "an integer": Broken(
        "return total(logprobs_list).long(), {}", "loss", "torch.int64", "floating point", "torch.int64"
    ),
    "detached": Broken(
        "return total(logprobs_list).detach(), {}", "loss", "has no gradient", "without detach()", "has no gradient"
    ),
    "a constant": Broken(
        "return torch.tensor(1.0), {}", "loss", "has no gradient", "compute it from logprobs_list", "has no gradient"
    ),
    "another device": Broken(
        "return total(logprobs_list).to('meta'), {}",
        "loss",
        "is on meta, logprobs_list on cpu",
        "device=",
        "is on meta",
    ),
    "nan on one datum": Broken(
        "kept[:] = kept or [data[2].model_input.to_ints()]\n"
        "return sum(torch.log(lp.sum() * 0) * 0 if d.model_input.to_ints() == kept[0] else lp.sum()\n"
        "           for d, lp in zip(data, logprobs_list, strict=True)), {}",
        "loss",
        "is nan: datum 2 alone gives nan (log-probabilities -",
        "log(0)",
        "datum 2 alone gives nan (log-probabilities -",
    ),
    "infinite": Broken(
        "return torch.exp(-1e4 * total(logprobs_list)), {}", "loss", "is inf: datum 0 alone gives inf", "exp", "is inf"
    ),
    "nan gradient": Broken(
        "return total(logprobs_list) + (logprobs_list[2] * 0).sum().sqrt(), {}",
        "gradient",
        "is nan at datum 2, position 0 (log-probability -",
        "sqrt(0)",
        "the gradient is nan at datum 2",
    ),
    "only the first datum": Broken(
        "return logprobs_list[0].sum(), {}",
        "gradient",
        "does not reach datum 1, 2, 3 and 4 more of 8",
        "use every logprobs_list[i]",
        "the gradient does not reach datum 1",
    ),
    "calls backward itself": Broken(
        "loss = total(logprobs_list); loss.backward(retain_graph=True)\nreturn loss, {}",
        "inputs",
        "called backward() itself",
        "return the loss",
        "called backward() itself",
    ),
    "writes to logprobs": Broken(
        "for lp in logprobs_list:\n    lp.data.clamp_(-1, 0)\nreturn total(logprobs_list), {}",
        "inputs",
        "logprobs_list[0] was changed in place",
        "logprobs_list[i].clone()",
        "logprobs_list[0] was changed in place",
    ),
    "writes to the data": Broken(
        "data[1].loss_fn_inputs['weights'].to_torch().mul_(0.5)\nreturn weighted(data, logprobs_list), {}",
        "inputs",
        'data[1].loss_fn_inputs["weights"] was changed',
        ".to_torch().clone()",
        'data[1].loss_fn_inputs["weights"] was changed',
    ),
    "adds a field to the data": Broken(
        "data[0].loss_fn_inputs['seen'] = data[0].loss_fn_inputs['weights']\nreturn weighted(data, logprobs_list), {}",
        "inputs",
        'data[0].loss_fn_inputs["seen"] was changed',
        "work on a copy",
        'data[0].loss_fn_inputs["seen"] was changed',
    ),
    "metrics a list": Broken(
        "return total(logprobs_list), [1]", "metrics", "a list", "a dict of names to floats", "metrics: a list"
    ),
    "metrics text": Broken(
        "return total(logprobs_list), {'a': 'b'}", "metrics", "'a' is a str", "float(x)", "metrics: 'a' is a str"
    ),
    "metrics a vector": Broken(
        "return total(logprobs_list), {'a': torch.ones(2)}",
        "metrics",
        "'a' is a Tensor",
        "float(x)",
        "metrics: 'a' is a Tensor",
    ),
    "a wrong backward": Broken(
        "return sum(Wrong.apply(lp).sum() for lp in logprobs_list), {}",
        "numerical gradient",
        "by autograd",
        "the backward() of Wrong is not the derivative of its forward()",
    ),
    "raises": Broken(
        "for datum, lp in zip(data, logprobs_list, strict=True):\n"
        "    if datum is data[3]:\n"
        "        raise ValueError('a planted bug')\n"
        "return total(logprobs_list), {}",
        "returns",
        "ValueError: a planted bug (at datum 3, log-probabilities -",
        "raise ValueError('a planted bug')",
        "ValueError: a planted bug (at datum 3, log-probabilities -",
    ),
    "needs a missing field": Broken(
        "return sum((d.loss_fn_inputs['scores'].to_torch() * lp).sum() for d, lp in zip(data, logprobs_list)), {}",
        "fields",
        "KeyError: 'scores' (at datum 0",
        "the datums have target_tokens, weights",
        "KeyError: 'scores' (at datum 0",
    ),
    "recursion": Broken(
        "def deeper(x):\n    return deeper(x) + 1\nreturn deeper(total(logprobs_list)), {}",
        "returns",
        "RecursionError: maximum recursion depth exceeded",
        "return deeper(x) + 1",
        "RecursionError: maximum recursion depth exceeded",
    ),
    "exits": Broken("sys.exit(1)", "returns", "raised SystemExit", "sys.exit(1)", "raised SystemExit"),
    "interrupts": Broken(
        "raise KeyboardInterrupt", "returns", "raised KeyboardInterrupt", "raise KeyboardInterrupt", "KeyboardInterrupt"
    ),
}

# What may be meant: it is registered, with a warning.
WARNED: dict[str, Broken] = {
    "ignores weights": Broken("return total(logprobs_list), {}", "weights", "of weight 0 (the prompt)", "multiply by"),
    "a mean over a padded tensor": Broken(
        "padded = torch.nn.utils.rnn.pad_sequence([d.loss_fn_inputs['weights'].to_torch() * lp\n"
        "    for d, lp in zip(data, logprobs_list, strict=True)])\nreturn -padded.mean(), {}",
        "weights",
        "more positions of weight 0",
        "a mean over a padded tensor divides by the longest sequence",
    ),
    "pairs the wrong way round": Broken(
        "chosen, rejected, _ = sequence_scores(data, logprobs_list)\n"
        "return -F.logsigmoid(rejected - chosen).mean(), {}",
        "pairs",
        "the pairs look swapped",
        "chosen comes first: data[0::2]",
    ),
    "a satisfied hinge the wrong way round": Broken(
        "chosen, rejected, _ = sequence_scores(data, logprobs_list)\n"
        "return torch.relu(1 - (rejected - chosen)).mean(), {}",
        "pairs",
        "the pairs look swapped",
        "is the sign turned?",
    ),
    "integer metrics": Broken(
        "return weighted(data, logprobs_list), {'n': len(data)}", "metrics", "'n' is a int", "write float(x)"
    ),
    "tensor metrics": Broken(
        "loss = weighted(data, logprobs_list)\nreturn loss, {'loss': loss}", "metrics", "'loss' is a Tensor", "detach()"
    ),
    "metrics with nan": Broken(
        "return weighted(data, logprobs_list), {'a': float('nan')}", "metrics", "'a' is nan", "charts leave it out"
    ),
    "double precision": Broken(
        "return weighted(data, logprobs_list).double(), {}", "loss", "is torch.float64", "look for .double()"
    ),
    "random": Broken(
        "return weighted(data, logprobs_list) * torch.rand(()), {}", "repeatable", "random:", "draw no random numbers"
    ),
    "random in Python": Broken(
        "return weighted(data, logprobs_list) * random.random(), {}", "repeatable", "random:", "draw no random numbers"
    ),
    "a generator of its own": Broken(
        "return weighted(data, logprobs_list) * generator.random(), {}", "repeatable", "stateful:", "keep nothing"
    ),
    "stateful": Broken(
        "kept.append(1)\nreturn weighted(data, logprobs_list) * len(kept), {}", "repeatable", "stateful:", "no counters"
    ),
    "stateful from the third call": Broken(
        "kept.append(1)\nreturn weighted(data, logprobs_list) * max(3, len(kept)), {}",
        "repeatable",
        "stateful:",
        "lists",
    ),
    "item in the middle": Broken(
        "loss = weighted(data, logprobs_list)\nreturn loss * loss.item(), {}",
        "numerical gradient",
        "by autograd",
        "look for detach(), .item()",
    ),
    "one part detached": Broken(
        "score = weighted(data, logprobs_list)\nreturn score + 3 * score.detach(), {}",
        "numerical gradient",
        ": 1 by autograd, 4 by differences",
        "is a part detached on purpose?",
    ),
    "keeps tensors alive": Broken(
        "loss = weighted(data, logprobs_list)\nkept.append(loss)\nreturn loss, {}",
        "memory",
        "tensors of the last call alive",
        "did you append to a list outside?",
    ),
    "prints much": Broken(
        "for i in range(60):\n    print('value', i)\nreturn weighted(data, logprobs_list), {}",
        "output",
        "60 lines printed in one call",
        "print less",
    ),
    "flat": Broken(
        "return torch.relu(weighted(data, logprobs_list)) + 0 * total(logprobs_list), {}",
        "gradient",
        "exactly 0 at datum 0",
        "Clamps, relu and rounding",
    ),
}
