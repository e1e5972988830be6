"""Arrays that are kept under a fingerprint of all that they depend on."""

import dataclasses
import io

import numpy as np
from etils import epath

from child_models.tables import DAMAGED
from launch.command import UserError, user_errors
from launch.workdir import write_bytes


@dataclasses.dataclass(frozen=True)
class Kept:
    """An npz that is replaced whole.

    Attributes:
      path: of the file; its folder is made.
      fingerprint: of what the arrays depend on.
    """

    path: epath.Path
    fingerprint: str

    def read(self) -> dict[str, np.ndarray] | None:
        """The arrays by name; None where nothing was kept.

        Raises:
          UserError: if the file is damaged, or of another fingerprint.
        """
        if not self.path.exists():
            return None
        content = io.BytesIO(self.path.read_bytes())
        try:
            with np.load(content, allow_pickle=False) as file:
                arrays = dict(file)
            theirs = str(arrays.pop("fingerprint"))
        except (OSError, ValueError, KeyError, *DAMAGED) as error:
            raise UserError(
                f"{self.path} is damaged; remove it to begin anew"
            ) from error
        if theirs != self.fingerprint:
            raise UserError(
                f"{self.path} is of other seeds or settings; take another workdir"
            )
        return arrays

    def write(self, **arrays: np.ndarray | float) -> None:
        """Keeps arrays.

        Raises:
          UserError: if they cannot be written.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, fingerprint=self.fingerprint, **arrays)
        with user_errors(str(self.path)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, buffer.getvalue())
