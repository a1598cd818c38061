"""The bundled model ``mint-tiny``: its weights, its tokenizer and the script that trained it.

:func:`path` returns a directory that ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained``
load without network access. Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["NAME", "path"]

NAME = "mint-tiny"


def path() -> Path:
    """Return the directory with the bundled model's weights, tokenizer and model card.

    Raises:
        FileNotFoundError: If the package was installed without the weights, or is imported from a zip file.
    """
    folder = Path(str(resources.files(__name__) / NAME))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no bundled model at {folder}; reinstall mint_lab, or train one with `python -m mint_lab.tiny.build`"
        )
    return folder
