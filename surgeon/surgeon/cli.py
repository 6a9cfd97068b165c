"""The command line: what exists, and how an error becomes one sentence and an exit code.

Commands live one to a file under ``surgeon.commands`` and are imported when they run: ``surgeon --help`` costs no more
than click.

Exit codes: 0 done, 1 a finding (engines differ, a rewrite altered a value), 2 usage or bad input, 3 could not decide
(an engine crashed, hung or ran out of memory, say).
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence

import click

from surgeon.lazy_group import LazyGroup
from surgeon.version import __version__

DONE, FINDING, BAD_INPUT, UNDECIDED = 0, 1, 2, 3

_COMMANDS = {
    "inspect": "What is in a model, a TensorRT engine or a timing cache; what differs between two caches.",
    "rewrite": "Run passes on a model, verified if asked, and save the result.",
    "extract": "Cut a piece out of a model, as a model that runs.",
    "passes": "The catalogue of passes and recipes, with their options.",
    "run": "Run a model on an engine and show or save its outputs.",
    "compare": "Compare two engines, or two models, output by output or layer by layer.",
    "find": "Name the culprit of a failure: nodes, or a tactic or fusion of TensorRT.",
    "replay": "Run a bundle of 'find' again, here, and say whether it still fails.",
    "build": "Build a TensorRT engine, with a timing cache that decides on its tactics if asked.",
    "bench": "How long a model takes on an engine: percentiles, throughput, layer by layer.",
    "doctor": "What is installed, which engines work here, a self-test of each.",
    "demo": "The whole story on a small model, in under a minute.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    prefix="surgeon.commands.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="surgeon")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def surgeon(debug: bool) -> None:
    """Rewrite ONNX graphs, prove that an engine still computes the same, name the culprit when it does not."""
    del debug  # read from the arguments by main, which must know it before anything can fail


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # A request to end is an interrupt: whatever was begun is taken back.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _interrupt)
    # onnxruntime reports names and hashes of models to its maker unless it is told not to; nobody asked us to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments: What was typed, without the program's name.

    Returns:
        The exit code.
    """
    debug = "--debug" in arguments
    if debug:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    typed = shlex.join(["surgeon", *arguments])
    try:
        result = surgeon.main(args=arguments, prog_name="surgeon", standalone_mode=False, obj=typed)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; nothing was left half-written", BAD_INPUT, debug)
    except click.ClickException as error:
        return _fail(_usage_sentence(error), BAD_INPUT, debug)
    except BrokenPipeError:
        # The reader of our output went away; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001  (the roof is where every error ends)
        return _fail(*_sentence(error), debug)
    return result if isinstance(result, int) else DONE


def _usage_sentence(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    help_hint = f" (see '{ctx.command_path} --help')" if ctx is not None else ""
    return error.format_message().rstrip(".") + help_hint


def _sentence(error: Exception) -> tuple[str, int]:
    from surgeon_passes.errors import SurgeonError, UndecidedError

    # An engine that refuses or leaves says something about what it was given; one that crashed or hung says nothing.
    ending = getattr(getattr(error, "ending", None), "name", "")
    if isinstance(error, UndecidedError) or ending in ("CRASHED", "HUNG", "OUT_OF_MEMORY"):
        return str(error), UNDECIDED
    if isinstance(error, SurgeonError):
        return str(error), BAD_INPUT
    if isinstance(error, MemoryError):
        return "out of memory; try a machine with more, or a smaller piece of the model (surgeon extract)", BAD_INPUT
    words = " ".join(str(error).split())[:300]
    return f"this is a bug in surgeon: {type(error).__name__}: {words}; --debug shows where", UNDECIDED


def _fail(sentence: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"surgeon: {sentence}", err=True)
    return code
