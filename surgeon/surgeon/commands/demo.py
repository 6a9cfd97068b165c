"""``surgeon demo``: the whole story on a small model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Leave the files of the story in FOLDER."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the model's weights.")
def command(keep: Path | None, seed: int) -> int:
    """Simplify a small transformer, break it in float16, repair the layer that broke; then name an engine's fault.

    Everything is computed while you watch: the model is built from a seed, the overflow is real. Offline.
    """
    import tempfile

    from surgeon.console import results
    from surgeon.demo_story import tell

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return tell(keep, results(), seed=seed)
    with tempfile.TemporaryDirectory(prefix="surgeon-demo-") as folder:
        return tell(Path(folder), results(), seed=seed)
