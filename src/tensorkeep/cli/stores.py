"""What the commands on stores share: opening one that must be there, and the policy as options."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

import tensorkeep as tk
from tensorkeep.cli import output

if TYPE_CHECKING:
    from tensorkeep.store.keep import Keep
    from tensorkeep.store.store import Store

_SPAN: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]+)?)([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Function = TypeVar("Function", bound=Callable[..., Any])

dry_run = click.option("-n", "--dry-run", is_flag=True, help="Change nothing: only tell what would become of it.")
store = click.argument("store", metavar="STORE", type=click.Path())


def opened(place: str, keep: "Keep | None" = None) -> "Store":
    """A store that is there.

    Raises:
        FileNotFoundError: there is none.
    """
    if not _is_there(place):
        whole, ref = with_ref(place)
        if whole != place and _is_there(whole):
            raise click.UsageError(f"{whole!r} is a store, and is taken whole here: leave '@{ref}' away")
        raise FileNotFoundError(2, "no store is there; `Store.save` makes one", place)
    return tk.Store(place, keep=keep)


def _is_there(place: str) -> bool:
    from tensorkeep.backends.choosing import open_backend  # late: help pages import no NumPy
    from tensorkeep.store.opened import is_store

    try:
        return is_store(open_backend(place, create=False))
    except (FileNotFoundError, NotADirectoryError):
        return False


def with_ref(text: str) -> tuple[str, str]:
    """`STORE@REF` in two; the newest checkpoint of a store that is named alone."""
    place, at, ref = text.rpartition("@")
    return (place, ref) if at and place and ref else (text, "latest")


def usage(error: ValueError) -> Exception:
    """An error of the store as it is; one of an argument as wrong usage."""
    return error if isinstance(error, (tk.TensorkeepError, OSError)) else click.UsageError(str(error))


def policy(function: Function) -> Function:
    """The options that say what stays."""
    for option in reversed(
        (
            click.option("--last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N."),
            click.option("--best", multiple=True, metavar="METRIC[=min|max]", help="Keep the one with the best value of METRIC."),
            click.option("--every", type=click.IntRange(min=1), metavar="N", help="Keep each whose step is a multiple of N."),
            click.option("--within", callback=_span, metavar="TIME", help="Keep what was saved less than TIME before the newest: 12h, 7d."),
            click.option(
                "--weights-only-after", type=click.IntRange(min=1), metavar="N", help="Of all but the newest N, keep only the weights."
            ),
        )
    ):
        function = option(function)
    return function


def policy_of(
    last: int | None, best: tuple[str, ...], every: int | None, within: timedelta | None, weights_only_after: int | None
) -> "Keep | None":
    """The policy that the options say; None where they say none."""
    if last is None and not best and every is None and within is None and weights_only_after is None:
        return None
    named: Any = {name: direction for name, at, direction in (text.partition("=") for text in best) if at}
    try:
        for text in best:
            if "=" not in text:
                named |= _known(text)
        return tk.Keep(last=last, best=named or None, every=every, within=within, weights_only_after=weights_only_after)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _known(metric: str) -> "dict[str, Literal['min', 'max']]":
    try:
        return tk.Keep(best=metric).directions
    except ValueError:
        raise click.UsageError(
            f"whether more of {metric!r:.80} is better its name does not say: --best {metric:.80}=min, or {metric:.80}=max"
        ) from None


def _span(ctx: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = _SPAN.fullmatch(value)
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{value!r:.40}: a number and s, m, h, d or w are wanted, such as 12h")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def steps_of(steps: "tuple[int, ...]") -> str:
    """`steps 1, 2 and 3`; of many, the first and the last."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    texts = [str(step) for step in steps]
    if len(texts) > 8:
        return f"{len(texts):,} steps, {texts[0]} to {texts[-1]}"
    return f"steps {', '.join(texts[:-1])} and {texts[-1]}"


def say_removal(removal: Any) -> None:
    """What became of checkpoints, in sentences."""
    would = "would be " if removal.dry_run else ""
    said = False
    for steps, what in ((removal.steps, "removed"), (removal.weights_only, "reduced to their weights")):
        if steps:
            output.say(f"{steps_of(steps)}: {would}{what}")
            said = True
    for tag in removal.tags:
        output.say(f"tag {tag}: {would}removed")
        said = True
    if removal.spared:
        output.say(f"{steps_of(removal.spared)}: written less than an hour ago, so {would}spared for now")
    for key, why in removal.damaged:
        output.say(f"{output.styled('damaged', fg='red')} {output.escaped(key)}: {output.lines_escaped(why)}")
    if not said:
        output.say(f"nothing {'would be' if removal.dry_run else 'was'} removed")
    elif removal.nbytes:
        output.say(f"{output.size(removal.nbytes)} {'would be' if removal.dry_run else 'are'} free after `tensorkeep gc`")
    else:
        output.say(
            f"nothing {'would be' if removal.dry_run else 'is'} free after `tensorkeep gc`: tags or other checkpoints need all of it"
        )
