"""The command line: words in, one verb, words out. One file a command; output.py alone knows tables, colour and JSON."""

import difflib
import importlib
import os
import sys
from typing import Any, Final

import click

from tensorkeep._version import __version__
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FAILED, TensorkeepError

COMMANDS: Final = {
    "demo": "Train, save, break, restore: the whole promise in half a minute.",
    "show": "Tell what FILE holds, from its header alone.",
    "verify": "Check every byte of FILES against the digests stored in them.",
    "version": "Print the versions of tensorkeep, Python and the frameworks that are installed.",
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
            close = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"No command {output.escaped(args[0])}.{hint}", ctx)
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
    """Save and load neural networks: any framework, no code run, every byte checked."""


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: as after `tensorkeep`.

    Returns:
        0 ok, 1 failed, 2 usage, 3 a finding, 130 interrupted.
    """
    as_json = "--json" in arguments
    try:
        code = cli.main(arguments, prog_name="tensorkeep", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        if as_json:
            output.print_error(error.format_message(), as_json=True, kind=type(error).__name__)
        else:
            error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        output.print_error("interrupted", as_json=as_json, kind="Interrupted")
        return 130
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except TensorkeepError as error:
        output.print_error(str(error), as_json=as_json, kind=type(error).__name__)
        return error.exit_code
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        output.print_error(f"{name}{error.strerror or error}", as_json=as_json, kind=type(error).__name__)
        return EXIT_FAILED
