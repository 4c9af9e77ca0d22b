"""The command line: words in, one verb, words out. One file a command; output.py alone knows tables, colour and JSON."""

import difflib
import importlib
import os
import sys
import warnings
from typing import Any, Final

import click

from tensorkeep._version import __version__
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FAILED, EXIT_OK, TensorkeepError

EXIT_INTERRUPTED: Final = 130  # as a shell reports Ctrl-C

COMMANDS: Final = {
    "convert": "Convert a model file SRC into DST, bit for bit.",
    "copy": "Copy the checkpoints of STORE into another store.",
    "delete": "Remove checkpoints of STORE by step, or tags by name.",
    "demo": "Train, save, break, restore: the whole promise in seconds.",
    "diff": "Tell what differs between the models A and B.",
    "export": "Write a checkpoint as a model file.",
    "fingerprint": "Tell which model each FILE holds, whatever its format.",
    "gc": "Remove what no checkpoint of STORE needs.",
    "log": "List the checkpoints of STORE.",
    "prune": "Remove the checkpoints of STORE that no rule keeps.",
    "rollback": "Remove every checkpoint after a step.",
    "scan": "Tell what each PATH would do if it were loaded the usual way.",
    "show": "Tell what FILE holds, from its header alone.",
    "stats": "Tell what STORE takes, and what of that is needed.",
    "tag": "Tag a checkpoint: it stays.",
    "verify": "Check every byte of each FILE against its digests.",
    "version": "Print the versions of tensorkeep, Python and frameworks.",
}


class Group(click.Group):
    """Loads a command when it is called, so that `--help` needs nothing of it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tensorkeep.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0][:100], COMMANDS, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]}?" if close else f" There are {', '.join(COMMANDS)}."
            raise click.UsageError(f"No command {args[0]!r:.100}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        output.write_examples(formatter, ("demo", "show model.safetensors", "verify model.safetensors --json"))
        super().format_help(ctx, formatter)


@click.command(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tensorkeep %(version)s")
def cli() -> None:
    """Save and load neural networks: no code run, every byte checked.

    Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 a finding (damage, danger, or nothing to check against), 130 interrupted.
    """


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    output.prepare()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # of what an error left unwritten; Python would try again as it ends, and make the exit code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or EXIT_FAILED
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: as after `tensorkeep`.

    Returns:
        0 ok, 1 failed, 2 usage, 3 a finding, 130 interrupted.
    """
    as_json = "--json" in arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: output.print_warning(str(message), as_json=as_json)
            code = cli.main(arguments or ["--help"], prog_name="tensorkeep", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        page = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        hint = f"Try '{page} --help'." if page else ""
        output.print_error(error.format_message(), as_json=as_json, kind=type(error).__name__, hint=hint)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.print_error("interrupted", as_json=as_json, kind="Interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough
        return EXIT_FAILED
    except (TensorkeepError, OSError) as error:
        output.report_error(error, as_json=as_json)
        return error.exit_code if isinstance(error, TensorkeepError) else EXIT_FAILED
    except MemoryError:
        output.print_error("not enough memory", as_json=as_json, kind="MemoryError")
        return EXIT_FAILED
    return code if isinstance(code, int) else EXIT_OK
