"""Train a policy of Qwen3-VL's shape on simulated scenes, as an adapter over its weights.

The way is sft, merge, bundle, seal (with lookback-bundle), then, if wanted, idpo, merge, bundle,
seal again. Nothing is downloaded: --model is a folder with a checkpoint, its tokenizer included.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import oracle
from ..idpo import SEEDS as IDPO_SEEDS
from ..nano import LABELS, ROOT, rust_program
from . import Refusal, records
from .examples import CELL, Vocabulary, example

# What needs transformers and peft is imported where it is used: --help does without them.
if TYPE_CHECKING:
    from .loop import Plan

MANIFEST = Path(__file__).parent / "qwen3-vl-2b.toml"
TEMPLATE = ROOT / "models/nano/chat_template.jinja"
SFT_PEAK, IDPO_PEAK = 1e-4, 2e-5
"""Learning rates as they are customary for adapters of this rank; not tuned for this policy."""


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except Refusal as e:
        sys.exit(f"lookback-train-vlm: {e}.")
    except ModuleNotFoundError as e:
        if e.name not in ("transformers", "peft"):
            raise
        sys.exit(f"lookback-train-vlm: {e.name} is not installed: run `uv sync --group vlm`.")


def sft(given: argparse.Namespace) -> None:
    """`sft`."""
    from . import policy, sft

    vocabulary = _vocabulary(given, given.manifest)
    train: records.Source
    val: records.Source
    if given.records:
        train, val = records.opened(given.records)
        about = f"{given.records.name} of {len(train)} records"
    else:
        if given.start + given.episodes > IDPO_SEEDS:
            raise Refusal(f"lessons end at seed {IDPO_SEEDS}: the seeds above are for other things")
        files = (_oracle(given.oracle), given.manifest, _file(given.template))
        train = records.Taught(*files, given.start, given.episodes, given.slips)
        val = records.Taught(*files, oracle.VAL, given.val_episodes)
        about = f"{given.episodes} seeds from {given.start}, slips {given.slips}"
    some = zip(range(given.val_episodes), val.traces() if len(val) else (), strict=False)
    checked = [example(t.episode, t.frames, vocabulary) for _, t in some]
    if not checked:
        print("no records to validate on: no val loss will be told", flush=True)
    about += f", rank {given.rank}" + (", with merger" if given.merger else "")
    torch.manual_seed(given.seed)
    base = policy.open_checkpoint(given.model, *_device(), vocabulary)
    model = policy.adapt(base, given.rank, given.merger)
    plan = _plan(given, len(train), about)
    sft.train(model, vocabulary, train, checked, plan, given.out, given.report)
    print(f"adapter written to {given.out}", flush=True)


def idpo(given: argparse.Namespace) -> None:
    """`idpo`."""
    from . import idpo, policy

    bundle, path = given.rollouts_from, given.records
    if bundle and not (bundle / "bundle.toml").is_file():
        raise Refusal(f"{bundle} is no bundle: it should hold bundle.toml")
    vocabulary = _vocabulary(given, bundle / "bundle.toml" if bundle else given.manifest)
    if bundle:
        binary, end = _oracle(given.oracle), given.start + given.windows
        if given.start < IDPO_SEEDS or end > oracle.VAL:
            raise Refusal(f"windows lie between seeds {IDPO_SEEDS} and {oracle.VAL}, new to it")
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / f"rollouts-{given.start}-{given.windows}x{given.each}.rec"
        records.kept(
            path,
            given.windows,
            lambda done: oracle.stream_rollouts(
                binary,
                given.start + done,
                given.windows - done,
                bundle,
                given.each,
                given.temperature,
            ),
        )
    rollouts, _ = records.opened(path)
    pairs = idpo.pairs_of(rollouts.traces(), vocabulary)
    base = policy.open_checkpoint(given.model, *_device(), vocabulary)
    model = policy.with_adapter(base, given.adapter, learns=True)
    about = f"{path.name} with {len(pairs)} pairs, from {given.adapter.name}"
    plan = _plan(given, len(pairs), about)
    idpo.train(model, vocabulary, pairs, plan, given.out, given.report)
    print(f"adapter written to {given.out}", flush=True)


def merge(given: argparse.Namespace) -> None:
    """`merge`."""
    from . import export

    export.merge(given.model, given.adapter, given.out)
    print(f"checkpoint written to {given.out}", flush=True)


def bundle(given: argparse.Namespace) -> None:
    """`bundle`."""
    manifest = read_manifest(given.manifest)
    if manifest["parts"] or not given.manifest.read_text().rstrip().endswith("[parts]"):
        raise Refusal(f"{given.manifest} must end with an empty [parts], to be filled in")
    _vocabulary(given, given.manifest)
    from . import export

    export.bundle(given.model, given.manifest, _file(given.template), LABELS, given.out)
    print(f"bundle written to {given.out}: seal it with `lookback-bundle seal`", flush=True)


def tower(given: argparse.Namespace) -> None:
    """`tower`."""
    width, _, height = given.size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise Refusal(f"--size {given.size}: give it as 448x448")
    from . import export

    size = (int(width), int(height))
    if any(side == 0 or side % (export.PATCH * export.MERGE) for side in size):
        raise Refusal(f"--size {given.size}: both must be multiples of 32")
    export.tower(given.model, size, given.out)
    print(f"tower written to {given.out}: give it to `lookback-models pack --onnx`", flush=True)


def read_manifest(path: Path) -> dict:
    """The manifest in `path`, if its geometry is that of the records, as Qwen3-VL cuts frames."""
    try:
        manifest = tomllib.loads(_file(path).read_text())
        geometry, probe = manifest["geometry"], manifest["prompts"]["probe"]
        size = (geometry["width"], geometry["height"])
        tokens, channels = geometry["tokens_per_pair"], geometry["channels"]
        grid = geometry["grid"]
        _ = (manifest["prompts"]["yes"], manifest["prompts"]["no"], manifest["parts"])
    except tomllib.TOMLDecodeError as e:
        raise Refusal(f"{path} is no TOML: {e}") from e
    except (KeyError, TypeError) as e:
        raise Refusal(f"{path} is no manifest of a policy: {e} is not in it") from e
    if size[0] % CELL or size[1] % CELL:
        raise Refusal(f"{path}: geometry {size[0]}x{size[1]} is no multiple of {CELL} pixels")
    if size != (oracle.WIDTH, oracle.HEIGHT):
        raise Refusal(
            f"{path}: geometry is {size[0]}x{size[1]}, and records hold frames of "
            f"{oracle.WIDTH}x{oracle.HEIGHT}"
        )
    rows, columns = size[1] // CELL, size[0] // CELL
    if (tokens, grid, channels) != (rows * columns, [rows, columns], 3):
        raise Refusal(
            f"{path}: Qwen3-VL makes {rows * columns} tokens of a pair of this geometry, a grid of "
            f"[{rows}, {columns}], from 3 channels, and the manifest says otherwise"
        )
    if probe:
        raise Refusal(f"{path}: prompts.probe must be empty, as the verdict is trained without it")
    return manifest


def _vocabulary(given: argparse.Namespace, manifest: Path) -> Vocabulary:
    prompts = read_manifest(manifest)["prompts"]
    if not given.model.is_dir():
        raise Refusal(f"{given.model} is not there: it should be a folder with a checkpoint")
    return Vocabulary.load(given.model, prompts["yes"], prompts["no"])


def _plan(given: argparse.Namespace, items: int, about: str) -> Plan:
    from .loop import Plan

    steps = given.steps or -(-items // given.batch)
    return Plan(steps, given.batch, given.at_once, given.learning_rate, given.seed, about)


def _device() -> tuple[torch.dtype, str]:
    """bf16 on a GPU; f32 on the CPU, where bf16 is only slower."""
    if torch.cuda.is_available():
        return torch.bfloat16, "cuda"
    print("no GPU: this will be slow", flush=True)
    return torch.float32, "cpu"


def _file(path: Path) -> Path:
    if not path.is_file():
        raise Refusal(f"{path} is not there, or no file")
    return path


def _oracle(given: Path | None) -> Path:
    return _file(given) if given else rust_program("lookback-oracle")


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Tells a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="lookback-train-vlm", description=__doc__, formatter_class=text
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shown = {"formatter_class": _Defaults}

    one = commands.add_parser(
        "sft",
        help="teach a checkpoint what the oracle would do",
        description="Supervised fine-tuning on taught inquiries; writes an adapter. Called again, "
        "it goes on where it was stopped.",
        **shown,
    )
    _model(one)
    one.add_argument("--manifest", type=Path, default=MANIFEST, help="geometry, budgets, prompts")
    one.add_argument("--template", type=Path, default=TEMPLATE, help="the policy's chat template")
    one.add_argument("--episodes", type=int, default=20_000, help="seeds; each is one inquiry")
    one.add_argument("--from", dest="start", type=int, default=oracle.TRAIN, help="first seed")
    one.add_argument("--slips", type=float, default=0.15, help="share of turns that are mistakes")
    one.add_argument("--val-episodes", type=int, default=100, help="inquiries to validate on")
    one.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="instead of asking the oracle, read what `lookback-oracle traces … > FILE` wrote; "
        f"seeds from {oracle.VAL} on validate",
    )
    one.add_argument("--rank", type=int, default=32, help="of the adapter")
    one.add_argument("--merger", action="store_true", help="adapt the vision merger as well")
    _how_much(one, batch=16, what="episodes", peak=SFT_PEAK, all_of="every episode once")
    one.set_defaults(run=sft)

    two = commands.add_parser(
        "idpo",
        help="teach it which of its own inquiries were worth more",
        description="Preference training on the policy's own inquiries; writes an adapter. The "
        "reference is the adapter that it begins with.",
        **shown,
    )
    _model(two)
    _adapter(two, "the adapter to begin with: the one in the bundle that inquired")
    by = two.add_mutually_exclusive_group(required=True)
    by.add_argument(
        "--rollouts-from",
        type=Path,
        metavar="BUNDLE",
        help="let this sealed bundle inquire; its inquiries are kept in --out",
    )
    by.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="what `lookback-oracle rollouts … > FILE` wrote",
    )
    two.add_argument("--manifest", type=Path, default=MANIFEST, help="with --records: its prompts")
    two.add_argument("--windows", type=int, default=600, help="that the bundle inquires about")
    two.add_argument("--each", type=int, default=4, help="inquiries about each of them")
    two.add_argument("--temperature", type=float, default=1.0, help="at which it inquires")
    two.add_argument("--from", dest="start", type=int, default=IDPO_SEEDS, help="first seed")
    _how_much(two, batch=4, what="pairs", peak=IDPO_PEAK, all_of="every pair once")
    two.set_defaults(run=idpo)

    three = commands.add_parser(
        "merge",
        help="work an adapter into a checkpoint",
        description="Writes a checkpoint of the same kind, with the adapter in its weights.",
        **shown,
    )
    _model(three, oracle_too=False)
    _adapter(three, "the adapter")
    three.set_defaults(run=merge)

    four = commands.add_parser(
        "bundle",
        help="make a bundle of a checkpoint",
        description="Writes decoder, vision tower (ONNX), tokenizer, template and manifest; "
        "`lookback-bundle seal` makes a bundle of them that a camera accepts.",
        **shown,
    )
    _model(four, oracle_too=False)
    four.add_argument("--manifest", type=Path, default=MANIFEST, help="ends with an empty [parts]")
    four.add_argument("--template", type=Path, default=TEMPLATE, help="the policy's chat template")
    four.set_defaults(run=bundle)

    five = commands.add_parser(
        "tower",
        help="export the vision tower of a checkpoint as ONNX",
        description="Writes the tower in standard operators for accelerators; `lookback-models "
        "pack --onnx` puts it beside the packed one.",
        **shown,
    )
    _model(five, oracle_too=False)
    five.add_argument("--size", default="448x448", help="width and height of the frames")
    five.set_defaults(run=tower)
    return parser


def _model(parser: argparse.ArgumentParser, oracle_too: bool = True) -> None:
    parser.add_argument("--model", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    if oracle_too:
        parser.add_argument("--oracle", type=Path, help="the lookback-oracle; without it, target/")


def _adapter(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--adapter", type=Path, required=True, help=what)


def _how_much(
    parser: argparse.ArgumentParser, batch: int, what: str, peak: float, all_of: str
) -> None:
    parser.add_argument("--steps", type=int, help=f"without it, {all_of}")
    parser.add_argument("--batch", type=int, default=batch, help=f"{what} of a step")
    parser.add_argument("--at-once", type=int, default=1, help=f"{what} that fit on the device")
    parser.add_argument("--learning-rate", type=float, default=peak, help="the highest")
    parser.add_argument("--report", type=int, default=25, help="steps between two savings")
    parser.add_argument("--seed", type=int, default=0, help="of the adapter, and of the order")


if __name__ == "__main__":
    main()
