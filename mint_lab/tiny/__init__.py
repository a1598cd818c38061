"""The bundled model ``mint-tiny``: its weights, its tokenizer and the script that made them.

``path()`` is a directory that ``AutoModelForCausalLM.from_pretrained`` and
``AutoTokenizer.from_pretrained`` take as it is, with no network. Importing this package imports
neither torch nor transformers.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["NAME", "path"]

NAME = "mint-tiny"


def path() -> Path:
    """The directory with the bundled model's weights, tokenizer and model card.

    Raises:
        FileNotFoundError: the package was installed without the weights, or from a zip.
    """
    found = Path(str(resources.files(__name__) / NAME))
    if not (found / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no bundled model at {found}; reinstall mint_lab, or make one with `python -m mint_lab.tiny.build`"
        )
    return found
