"""The command line around training: LightningCLI over the project's module and data."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from xmodal.data.module import AudioTextData
from xmodal.errors import XmodalError
from xmodal.training.module import AlignmentModule
from xmodal.training.resume import NEWEST, OneRunFolder, next_version, run_to_resume

_TOOLS = {
    "overfit": ("probes", "overfit_command"),
    "lr-find": ("probes", "lr_find_command"),
    "sweep": ("sweep", "command"),
}
# The loggers that write into the run's folder, runs/name/version_N.
_KEEP_A_FOLDER = ("TensorBoardLogger", "CSVLogger", "CsvCurves")


# Lightning says these of every run; they are advertisements, or no news.
_CHATTER = ("💡 Tip:", "TPU available", "Loading `train_dataloader`")


def show_log() -> None:
    """Print what xmodal has to say to a user at work, and leave other libraries' chatter out."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)
    log = logging.getLogger("xmodal")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_CHATTER)


class Cli(LightningCLI):
    """LightningCLI over the project's module and data, with one folder for all that a run writes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """``--runs`` and ``--name`` say where the loggers write, ``--resume`` where a run goes on."""
        parser.add_argument("--runs", type=str | None, default=None, help="Folder of all runs, for every logger.")
        parser.add_argument("--name", type=str | None, default=None, help="Name of the run, for every logger.")
        parser.add_argument(
            "--resume",
            type=str,
            nargs="?",
            const=NEWEST,
            default=None,
            help="Go on with the newest run of this name, or the one in the given folder, from its last good "
            "checkpoint. Where there is none yet a new run begins, so a job may always be started with it.",
        )

    def before_instantiate_classes(self) -> None:
        """Send every logger to the same folder ``runs/name/version_N``: a new one, or the one to go on with."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        strategy = config.trainer.strategy
        if isinstance(strategy, str) and "." in strategy:  # Lightning's type takes any word for the name of a strategy
            config.trainer.strategy = Namespace(class_path=strategy, init_args=Namespace())
        loggers = [logger for logger in _as_list(config.trainer.logger) if hasattr(logger, "init_args")]
        for logger in loggers:
            if logger.class_path.endswith(_KEEP_A_FOLDER):
                logger.init_args.save_dir = config.runs or logger.init_args.save_dir
                logger.init_args.name = config.name or logger.init_args.name
        own = [logger.init_args for logger in loggers if logger.class_path.endswith(_KEEP_A_FOLDER)]
        runs = Path(own[0].save_dir) / (own[0].name or "") if own else None
        resumed = None
        if runs is not None and self.subcommand == "fit" and config.resume is not None:
            resumed = run_to_resume(runs, config.resume)
        if resumed is not None:
            folder, checkpoint = resumed
            config.ckpt_path, config.weights_only = str(checkpoint), True
            for each in own:
                each.save_dir, each.name, each.version = str(folder.parents[1]), folder.parent.name, folder.name
        elif runs is not None and all(each.version is None for each in own):
            version = next_version(runs)
            for each in own:
                each.version = version
        if own:
            _name_services(loggers, f"{own[0].name}/{_folder(own[0].version)}")


def _name_services(loggers: Sequence[Any], name: str) -> None:
    """Call the run by its folder in services that keep runs elsewhere (W&B, MLflow), unless it has a name there."""
    for logger in loggers:
        if not logger.class_path.endswith(_KEEP_A_FOLDER):
            # W&B says name where MLflow says run_name; MLflow has no name.
            word = "run_name" if "run_name" in logger.init_args else "name"
            if word in logger.init_args and logger.init_args[word] in (None, "lightning_logs"):
                logger.init_args[word] = name


def _folder(version: int | str) -> str:
    return version if isinstance(version, str) else f"version_{version}"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def run(args: Sequence[str] | None = None, *, callbacks: Sequence[pl.Callback] = ()) -> Cli:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` and give back what it ran with (model, data, trainer).

    Args:
        args: Command-line words; None for those of the process.
        callbacks: To run with besides those of the configuration.

    Raises:
        XmodalError: If the data or a checkpoint cannot be used.
    """
    show_log()
    whole = {"allow_abbrev": False}
    with _without_old_news():
        return Cli(
            AlignmentModule,
            AudioTextData,
            args=None if args is None else list(args),
            trainer_defaults={"callbacks": [OneRunFolder(), *callbacks]},
            save_config_kwargs={"overwrite": True},
            # A shortened option would be taken for the one that it begins: a typo must be an error.
            parser_kwargs=whole | dict.fromkeys(LightningCLI.subcommands(), whole),
        )


def build(args: Sequence[str], data: type[AudioTextData] = AudioTextData) -> Cli:
    """Make what the words after ``fit`` describe (model, data, trainer, config), and run nothing.

    Args:
        args: Command-line words without a subcommand.
        data: The class of the data module.
    """
    show_log()
    with _without_old_news():
        return Cli(
            AlignmentModule,
            data,
            args=list(args),
            run=False,
            save_config_callback=None,
            parser_kwargs={"allow_abbrev": False},
        )


@contextmanager
def _without_old_news() -> Iterator[None]:
    with warnings.catch_warnings():
        # Said of every run with a frozen encoder or in bf16, or between two libraries; no news to the user.
        for said in (
            "Found .* module.* in eval mode",
            "Precision bf16-mixed is not supported by the model summary",
            "LightningCLI's args parameter",
            "(?s).*(JsonargparseDeprecationWarning|was deprecated in v4)",
            ".*LeafSpec.* is deprecated",
            ".* does not have many workers",
            "You are using a custom batch sampler",  # in predict; EvaluationBatches leaves nothing out
            "Experiment logs directory",  # the folder is new and shared: the other logger was there first
        ):
            warnings.filterwarnings("ignore", said)
        yield


def main(args: Sequence[str] | None = None) -> int:
    """:func:`run` as a command: an exit code, and errors of the input in one sentence.

    ``overfit``, ``lr-find`` and ``sweep`` stand beside Lightning's own subcommands.
    """
    words = sys.argv[1:] if args is None else list(args)
    try:
        if words and words[0] in _TOOLS:
            module, function = _TOOLS[words[0]]
            with _without_old_news():
                return int(getattr(import_module(f"xmodal.training.{module}"), function)(words[1:]))
        run(args)
    except (XmodalError, ModuleNotFoundError) as error:
        print(f"xmodal: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except ValueError as error:
        if not words or words[0] not in _TOOLS:
            raise
        print(f"xmodal: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def config_folder() -> Path:
    """The YAML files that come with xmodal: in an installed package inside of it, in a checkout beside it."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
