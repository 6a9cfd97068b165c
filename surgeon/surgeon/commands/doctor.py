"""``surgeon doctor``: what works here."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("doctor")
@click.option(
    "--self-test", type=click.Choice(["tensorrt"]), help="Put this engine and its device to the test instead."
)
@click.option(
    "--record", type=_FILE, metavar="OUT.zip", help="With --self-test: keep logs, caches, layers and answers in a file."
)
@click.option(
    "--other-cache", type=_FILE, metavar="CACHE", help="With --self-test: a timing cache made on another device."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="With --self-test: what it may take; what does not fit is answered with unknown.",
)
@options.json_option
def command(self_test: str | None, record: Path | None, other_cache: Path | None, seconds: float, as_json: bool) -> int:
    r"""Show what is installed and try every engine on a small model.

    Ends with 1 if onnxruntime, the reference of every comparison, does not work.

    With --self-test tensorrt five small models are built and compared layer by layer, one tactic is pinned, and eight
    questions are answered that only a device can answer. The file of --record holds no weights and inputs but its own;
    it is what a report about TensorRT should come with. Ends with 1 if a model differs or a pinned tactic is not
    followed, with 2 without TensorRT or a GPU.

    \b
    Examples:
      surgeon doctor
      surgeon doctor --self-test tensorrt --record here.zip
    """
    from surgeon.doctoring import SelfTest, perform_self_test, show_runners

    if self_test is not None:
        return perform_self_test(SelfTest(record, other_cache, seconds, as_json))
    if record is not None or other_cache is not None:
        from surgeon_passes.errors import BadOptionError

        given = "--record" if record is not None else "--other-cache"
        raise BadOptionError(f"{given} belongs to a self-test", hint="add --self-test tensorrt")
    return show_runners(as_json=as_json)
