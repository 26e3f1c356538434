"""What the commands share: an option for every setting, settings files, and patterns for image files."""

from __future__ import annotations

import functools
import glob
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.images.addresses import natural_key, remote
from sam2_fewshot.settings import Settings, as_name, as_number, choices_of, group_of, limits_in_words
from sam2_fewshot.storage.files import expanded, parse_yaml, read_yaml_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.fields import FieldInfo

_LIKE = "one setting a line, like `similarity_threshold: 0.6`."
_EMPTY = "It is empty, as where a variable of the shell is not set; give a file or folder."


Debug = Annotated[bool, typer.Option("--debug", help="Show where a defect of the program is.")]
"""The option of a command whose defects can be traced."""


class Command(TyperCommand):
    """A command that takes no option a second time where one value counts: the first would be lost without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and refuse what was given twice."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        left = super().parse_args(ctx, args)  # asked for help, it ends here
        for param in {id(each): each for each in order}.values():
            times = sum(each is param for each in order)
            if times > 1 and not (getattr(param, "multiple", True) or getattr(param, "is_flag", True)):
                sentence = f"It was given {times} times, but takes one value."
                raise typer.BadParameter(sentence, ctx, param_hint=f"'{param.opts[0]}'")
        return left


def as_path(text: str) -> Path:
    """Read a path from the command line, where ``~`` is home, and an empty one would be the working directory."""
    if not text:
        raise typer.BadParameter(_EMPTY)
    return expanded(text)


def required(help: str, metavar: str, parser: Callable[[str], Any] | None = None) -> Any:
    """Return an argument that must be given."""
    return typer.Argument(help=help, metavar=metavar, parser=parser, show_default=False)


def optional(
    *names: str, help: str, metavar: str, panel: str | None = None, parser: Callable[[str], Any] | None = None
) -> Any:
    """Return an option whose help says in words what happens without it."""
    return typer.Option(*names, help=help, metavar=metavar, parser=parser, rich_help_panel=panel, show_default=False)


def channels_option(panel: str | None = None, left_out: str = "") -> Any:
    """Return the option that says how channels are displayed, and what holds without it."""
    about = "YAML file with the colour and contrast of each channel, as in docs/formats.md under Channels."
    return optional(
        parser=as_path,
        help=f"{about} {left_out}".rstrip(),
        metavar="YAML",
        panel=panel,
    )


def save_model_option(panel: str | None = None) -> Any:
    """Return the option of a command that can keep what it learns."""
    return optional(
        parser=as_path,
        help="Save what is learned from the examples in this file, for --object-model.",
        metavar="FILE.npz",
        panel=panel,
    )


def scheduler_option(panel: str | None = None) -> Any:
    """Return the option of a command whose frames others can search."""
    return optional(
        help="Share the frames among processes with Dask: a scheduler's address (tcp://host:8786), a number of "
        "workers on this machine, or local to choose it. Default: this process alone.",
        metavar="WHERE",
        panel=panel,
    )


def with_settings(command: Callable[..., None], left_out: str | None = None) -> Callable[..., None]:
    """Give a typer command an option for every setting.

    The command's parameter ``settings`` is replaced by the options, and is called with a dict of those that were given,
    as text or, of a switch, as a bool: :class:`Settings` itself reads and refuses values, so there is one sentence for
    each.

    Parameters
    ----------
    command
        To be given the options.
    left_out
        What the help says of options that are left out; each setting's default when None.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name != "settings"]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    for name, field in Settings.model_fields.items():
        option = _option(name, field, left_out)
        keyword.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option))

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        settings = {name: given.pop(name) for name in Settings.model_fields}
        command(**given, settings={name: text for name, text in settings.items() if text is not None})

    wrapper.__signature__ = signature.replace(parameters=keyword)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in keyword}
    del wrapper.__wrapped__  # typer would read the command's own signature through it
    return wrapper


def read_settings(
    options: Mapping[str, str | bool], config: Path | None, base: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings: an option counts before the YAML file, that before the base, and that before the default.

    Raises
    ------
    SettingsError
        If a value cannot be used, or if the file cannot be read.
    """
    values = {**(base or {}), **_read_config(config), **{name: as_number(text) for name, text in options.items()}}
    try:
        return Settings(**values)
    except SettingsError as error:
        if config is None or all(name in options for name in values):
            raise
        raise SettingsError(f"{error} (Settings were also read from {config}.)") from None


def _option(name: str, field: FieldInfo, left_out: str | None) -> Any:
    panel = f"Settings: {group_of(field)}"
    option = "--" + name.replace("_", "-")
    if field.annotation is bool:
        text = _help(field, "", left_out)
        flag = f"{option}/--no-{option.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)]
    if choices := choices_of(field):
        metavar = "NAME"
        allowed = f"One of: {', '.join(choices)}."
    else:
        metavar = "INTEGER" if field.annotation is int else "NUMBER"
        limits = limits_in_words(field)
        allowed = f"{limits[0].upper()}{limits[1:]}."
    return Annotated[
        str | None,
        typer.Option(
            option,
            help=_help(field, allowed, left_out),
            metavar=metavar,
            rich_help_panel=panel,
            show_default=False,  # typer would put a text's default in parentheses of its own
        ),
    ]


def _help(field: FieldInfo, allowed: str, left_out: str | None) -> str:
    about = field.description or ""
    if left_out is not None:
        about = about.partition(" Left out: ")[0]
    elif field.default is not None:  # the description explains a default of None
        left_out = f"Default {field.default}."
    return " ".join(part for part in (about, allowed, left_out) if part)


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    text = read_yaml_text(path, "settings file")
    try:
        content = parse_yaml(text, f"The settings file {path}")
    except SettingsError as error:
        raise SettingsError(f"{error} Write {_LIKE}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SettingsError(f"The settings file {path} must have {_LIKE}")
    return {as_name(name): value for name, value in content.items()}


def expand(arguments: Iterable[str]) -> list[Path]:
    """Return the files that the arguments name, patterns like ``*.tif`` replaced by what they match.

    The arguments stay in their order, and the matches of one pattern are in natural order (img2 before img10).
    A file whose name has brackets in it is taken as it is where it exists, and so are folders before a pattern.

    Raises
    ------
    InputError
        If nothing fits a pattern, or an argument is empty.
    """
    paths: list[Path] = []
    for argument in arguments:
        if not argument:
            raise InputError(f"The name of an image is missing. {_EMPTY}")
        path = as_path(argument)
        if remote(argument) or path.exists() or not glob.has_magic(argument):
            paths.append(path)
            continue
        # Path.glob wants a folder without patterns to start from, and the pattern may be absolute.
        found = sorted(glob.glob(_pattern(path), recursive=True), key=_natural)  # noqa: PTH207
        if not found:
            raise InputError(f"No file fits {argument!r}; check the folder and the ending.")
        paths += map(Path, found)
    return paths


def _pattern(path: Path) -> str:
    """Return a path as a pattern in which the folders that exist as they are called stand for themselves."""
    there = next(folder for folder in path.parents if folder.exists() or folder == folder.parent)
    return str(Path(glob.escape(str(there))) / path.relative_to(there))


def _natural(path: str) -> list[object]:
    return [natural_key(Path(part)) for part in Path(path).parts]
