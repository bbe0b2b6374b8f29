"""Pickled checkpoints of other frameworks, read without running what a pickle may ask to be run.

PyTorch's restricted reader makes tensors and plain containers. Of the other classes that honest
checkpoints name, an inert stand-in is made that forgets what it is given; anything else is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from detdistill.errors import UserError


class Inert:
    """Stands where a checkpoint has an object that nobody here reads."""

    def __new__(cls, *_: object) -> Self:
        """Whatever it would have been made from."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Whatever it would have held."""


INERT = (
    "argparse.Namespace",
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)
"""Names of the options in torchvision's checkpoints, and in the training logs of MMEngine's, where
`getattr` finds methods of `HistoryBuffer`."""
WRAPPERS = ("state_dict", "model")
"""Entries of a training state that hold the weights."""
ALLOWED: list[Any] = [(Inert, name) for name in INERT]


def read(path: Path) -> Any:  # noqa: ANN401 - anything may be pickled
    """What a file of `torch.save` holds, in either of its formats.

    Raises:
        UserError: there is no such file, it is damaged, or it wants something that is not allowed.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except EOFError as error:
        raise _damaged(path, "it ends too early") from error
    except RuntimeError as error:  # the reader of zip files says what it misses
        raise _damaged(path, " ".join(str(error).split()).partition(". ")[0].rstrip(".")) from error
    except Exception as error:  # damaged bytes can raise anything
        raise _damaged(path, "its bytes mean nothing") from error


def state_dict(content: object) -> dict[str, Tensor]:
    """Tensors by name, without a training state around them or `module.` before their names."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return {
        str(name).removeprefix("module."): tensor
        for name, tensor in (content if inner is None else inner).items()
        if isinstance(tensor, Tensor)
    }


def _refusal(path: Path, complaint: str) -> UserError:
    named = re.search(r"GLOBAL ([\w.]+)", complaint)
    if named:
        return UserError(
            f"{path} wants {named[1]!r}, which is not among the names that a checkpoint may use; "
            "nothing of it was run. Only load files from people whom you trust."
        )
    return _damaged(path, "its bytes mean nothing")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is cut short, or no checkpoint of PyTorch ({reason}).")
