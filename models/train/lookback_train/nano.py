"""`lookback-train`: trains the default policy end to end, resuming where it stopped, or goes on to
teach that of a bundle."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from . import examples, export, gate, idpo, oracle, perception, retrain, sentinel, sft, tokens
from .decoder import Shape
from .tower import Perception

ROOT = Path(__file__).resolve().parents[3]
TOKENIZER_EPISODES = 3000
ASKED_AT = (0.3, 0.5, 0.7)
"""Shares of the SFT steps after which the policy is asked to go its own way in new lessons."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    perception_steps: int
    shards: int
    per_shard: int
    own_shards: int
    """Shards in which the policy in training goes its own way, for each time that it is asked."""
    val_episodes: int
    sft_steps: int
    report: int
    idpo_rounds: int
    idpo_windows: int
    """Windows that the policy inquires about for each round of iDPO, six times each."""
    idpo_steps: int


PLANS = {
    "full": Plan(5200, 200, 100, 30, 500, 12000, 250, 0, 4500, 500),
    "tiny": Plan(60, 3, 100, 1, 60, 60, 20, 1, 12, 6),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="lookback-train", description=__doc__)
    parser.add_argument(
        "command",
        choices=["nano", "tower", "sft", "idpo", "sentinel"],
        help="train the policy, measure what the tower in --work sees, train another decoder for "
        "the tower of --bundle, teach the policy of --bundle by preference for one round, or train "
        "the sentinel's network",
    )
    parser.add_argument("--tiny", action="store_true", help="a few minutes, to test the pipeline")
    parser.add_argument("--work", type=Path, default=ROOT / "models/train/work")
    parser.add_argument(
        "--out", type=Path, help="(default: models/nano; of `sentinel`: edge-agent/sentinel/model)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: all)")
    parser.add_argument("--perception-steps", type=int)
    parser.add_argument("--sft-steps", type=int)
    parser.add_argument(
        "--minutes",
        type=float,
        help="of `sft`: take as many of the steps as there is time for, on a machine that is lent",
    )
    parser.add_argument(
        "--shards", type=int, help="of lessons; `sft` needs none if --work has them already"
    )
    parser.add_argument("--own-shards", type=int, help="those in which the policy goes its own way")
    parser.add_argument(
        "--first-shard",
        type=int,
        default=0,
        help="of `sft`: where its lessons begin, to go on with ones that were not learnt before",
    )
    parser.add_argument(
        "--init",
        type=Path,
        help="begin SFT from the weights in this policy.pt, or from the decoder of this bundle, "
        "with its tokenizer; of `sentinel`: the folder of a network, to go on from it with the "
        "last cycle alone",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="of `sft --init BUNDLE` and `idpo`: share of the weights that it began with in those "
        "that are written, 0 to 1: between both a policy often does what either does (default: 0)",
    )
    parser.add_argument("--learning-rate", type=float, default=sft.LEARNING_RATE)
    parser.add_argument(
        "--batch-size", type=int, default=sft.BATCH, help="of `sft`, in lessons (default: 8)"
    )
    parser.add_argument(
        "--device", default="cpu", help="of `sft` and `idpo`: cpu or cuda (default: cpu)"
    )
    parser.add_argument(
        "--renderers",
        type=int,
        default=1,
        help="of `sft` and `idpo`: processes that render side by side (default: 1)",
    )
    parser.add_argument("--idpo-rounds", type=int)
    parser.add_argument("--idpo-windows", type=int, help="for each round")
    parser.add_argument("--idpo-steps", type=int, help="of each round")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=ROOT / "models/nano",
        help="of `idpo`: where it begins; of `sft`: whose tower it is",
    )
    parser.add_argument(
        "--passive",
        action="store_true",
        help="the baseline: the same tower and steps for uniform frames, without looks",
    )
    parser.add_argument(
        "--until", choices=["lessons", "perception", "sft", "export"], default="export"
    )
    splits = {"val": oracle.VAL, "test": oracle.TEST, "fresh": oracle.FRESH}
    parser.add_argument("--split", choices=splits, default="val", help="of `tower`")
    parser.add_argument("--videos", type=int, default=1000, help="of `tower`, 8 frame pairs each")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.command == "sentinel":
        out = given.out or ROOT / "edge-agent/sentinel/model"
        watch(given.tiny, given.work, out, given.seed, given.init)
        return
    given.out = given.out or ROOT / "models/nano"
    if given.command == "tower":
        tower, start = given.work / "perception.pt", splits[given.split]
        if not tower.exists():
            raise SystemExit(f"there is no {tower}: train one with `lookback-train nano`")
        binary = rust_program("lookback-oracle")
        print(perception.measure(binary, tower, start, given.videos).table(tuple(LABELS)))
        return
    if given.command in ("idpo", "sft") and given.out.resolve() == given.bundle.resolve():
        raise SystemExit(f"{given.out} is where it begins: name another folder with --out")
    if not 0.0 <= given.keep <= 1.0:
        raise SystemExit(f"--keep {given.keep}: a share, from 0 to 1")
    from_bundle = given.command == "sft" and given.init and given.init.is_dir()
    if given.keep > 0.0 and not (given.command == "idpo" or from_bundle):
        raise SystemExit(
            "--keep needs `idpo`, or `sft` and a bundle to keep of: name it with --init"
        )
    if given.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"--device {given.device}: PyTorch finds no GPU here; leave it out")
    if given.batch_size < 1 or given.renderers < 1:
        raise SystemExit("--batch-size and --renderers are 1 at least")
    if given.minutes is not None and given.minutes <= 0.0:
        raise SystemExit(f"--minutes {given.minutes}: more than 0")
    plan = PLANS["tiny" if given.tiny else "full"]
    plan = Plan(
        given.perception_steps or plan.perception_steps,
        plan.shards if given.shards is None else given.shards,
        plan.per_shard,
        plan.own_shards if given.own_shards is None else given.own_shards,
        plan.val_episodes,
        given.sft_steps or plan.sft_steps,
        plan.report,
        plan.idpo_rounds if given.idpo_rounds is None else given.idpo_rounds,
        given.idpo_windows or plan.idpo_windows,
        given.idpo_steps or plan.idpo_steps,
    )
    programs = rust_programs()
    if given.command == "sft":
        retrain.train(
            given.bundle,
            given.out,
            given.work,
            programs,
            (plan.shards, plan.own_shards, plan.per_shard),
            plan.val_episodes,
            plan.sft_steps,
            given.seed,
            plan.report,
            given.init,
            given.learning_rate,
            given.passive,
            only_lessons=given.until == "lessons",
            keep=given.keep,
            first_shard=given.first_shard,
            minutes=given.minutes,
            batch_size=given.batch_size,
            device=given.device,
            renderers=given.renderers,
        )
        if given.until != "lessons":
            print(f"bundle written to {given.out}", flush=True)
        return
    if given.command == "idpo":
        start = idpo.SEEDS + (given.seed * 10 + 1) * plan.idpo_windows
        amount = (start, plan.idpo_windows, plan.idpo_steps, given.seed + 1)
        means = (given.device, given.renderers)
        idpo.teach(given.bundle, given.out, given.work, programs, *amount, given.keep, *means)
        print(f"bundle written to {given.out}", flush=True)
        return
    peak = given.learning_rate
    run(plan, given.work, given.out, given.seed, given.until, given.init, peak, given.passive)


def watch(tiny: bool, work: Path, out: Path, seed: int, init: Path | None) -> None:
    """Trains the sentinel's network in `work`, and writes what the camera carries."""
    work.mkdir(parents=True, exist_ok=True)
    plan = sentinel.PLANS["tiny" if tiny else "full"]
    binary = rust_program("lookback-oracle")
    if init is not None and not (init / gate.MODEL).exists():
        raise SystemExit(f"there is no {init / gate.MODEL} to go on from: --init names its folder")
    network = sentinel.train(binary, work / "sentinel.pt", plan, seed, init)
    print(sentinel.measure(binary, network, oracle.VAL, plan.val_windows), flush=True)
    gate.write(network, out)
    print(f"network written to {out}", flush=True)


def run(
    plan: Plan,
    work: Path,
    out: Path,
    seed: int,
    until: str,
    init: Path | None = None,
    peak: float = sft.LEARNING_RATE,
    passive: bool = False,
) -> None:
    """All stages; each writes a file into `work` and is skipped or resumed if it is there.

    With `passive` the tower of `work` is used, and what is trained on it is written beside.
    """
    work.mkdir(parents=True, exist_ok=True)
    programs = rust_programs()
    binary, sealers = programs[0], programs[1:]
    files = (ROOT / "models/train/nano.toml", ROOT / "models/nano/chat_template.jinja")
    tokenizer_file = work / "tokenizer.json"
    if init is not None and init.is_dir():
        shutil.copy(init / "tokenizer.json", tokenizer_file)
    if not tokenizer_file.exists():
        tokens.learn(_texts(binary, files)).save(str(tokenizer_file))
    weights = work / "perception.pt"
    perception.train(binary, weights, plan.perception_steps, seed, plan.report)
    figures = perception.measure(
        binary, weights, oracle.VAL, 100 if plan.perception_steps < 1000 else 400
    )
    print(f"perception on val, AUC\n{figures.table(tuple(LABELS))}", flush=True)
    if until == "perception":
        return
    tokenizer = tokens.load(tokenizer_file)
    sort = "-passive" if passive else ""
    train_folder, val_folder = work / f"shards{sort}", work / f"val{sort}"
    learnt = work / f"policy{sort}.pt"
    common = (weights, binary, files)
    val_shard = (val_folder, *common, oracle.VAL, range(1), plan.val_episodes)
    examples.render_shards(*val_shard, passive=passive)
    common = (train_folder, *common, oracle.TRAIN + seed * 600_000)
    lessons = (*common, range(plan.shards), plan.per_shard)
    renderers = [examples.render_in_background(*lessons, None, passive)]
    data = examples.DataSet(train_folder, tokenizer)
    val = examples.DataSet(val_folder, tokenizer)
    state = torch.load(weights, weights_only=True)
    seen = Perception(len(json.loads(state["classes"])))
    seen.load_state_dict(state["perception"])
    asked = [] if passive else [round(at * plan.sft_steps) for at in ASKED_AT]

    def ask_the_pupil(step: int) -> None:
        """Starts the renderings that are due; a resumed run finds what it has already."""
        while len(renderers) <= len(asked) and step >= asked[len(renderers) - 1]:
            time_asked = len(renderers)
            pupil = work / f"pupil-{time_asked}"
            if not (pupil / "bundle.toml").exists():
                bundle(learnt, pupil)
            first = plan.shards + (time_asked - 1) * plan.own_shards
            numbers = range(first, first + plan.own_shards)
            renderers.append(examples.render_in_background(*common, numbers, plan.per_shard, pupil))

    def bundle(policy: Path, folder: Path) -> None:
        export.bundle(weights, policy, tokenizer_file, files[1], files[0], LABELS, sealers, folder)

    sft.train(
        data,
        val,
        Shape.of_manifest(files[0], tokenizer.get_vocab_size()),
        seen,
        learnt,
        plan.sft_steps,
        seed,
        plan.report,
        init=init,
        peak=peak,
        saved=ask_the_pupil,
    )
    for renderer in renderers:
        renderer.terminate()
    if until == "sft":
        return
    newest = work / f"sft{sort}"
    bundle(learnt, newest)
    for number in range(1, 1 + (0 if passive else plan.idpo_rounds)):
        before, newest = newest, work / f"idpo-{number}"
        if not (newest / "bundle.toml").exists():
            start = idpo.SEEDS + (seed * 10 + number) * plan.idpo_windows
            amount = (start, plan.idpo_windows, plan.idpo_steps, seed + number)
            idpo.teach(before, newest, work, programs, *amount)
    shutil.copytree(newest, out, dirs_exist_ok=True)
    print(f"bundle written to {out}", flush=True)


# In the order in which the oracle counts the kinds.
LABELS = {
    "fall": "A person fell.",
    "climb": "A person climbed over a fence.",
    "crash": "Cars collided.",
    "abandoned bag": "A bag was left behind.",
    "fight": "One person attacked another.",
    "theft": "Something was snatched.",
    "wrong way": "A car came against its lane.",
    "loitering": "A person loiters.",
    "smoke": "Smoke is rising.",
    "dispersal": "A group ran apart.",
}


def rust_programs() -> tuple[Path, Path, Path]:
    """`lookback-oracle`, `lookback-bundle` and `lookback-models`."""
    names = ("lookback-oracle", "lookback-bundle", "lookback-models")
    renders, seals, packs = map(rust_program, names)
    return renders, seals, packs


def rust_program(name: str) -> Path:
    """The release build of one of the repository's programs."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release" / name
    if not path.exists():
        raise SystemExit(f"{path} is not built: run `cargo build --release --workspace`")
    return path


def _texts(binary: Path, files: tuple[Path, Path]) -> list[str]:
    started = time.time()
    found = [
        segment.get("context") or segment.get("policy") or ""
        for trace in oracle.stream_traces(
            binary, oracle.TRAIN + 4_900_000, TOKENIZER_EPISODES, *files, frames=False
        )
        for segment in trace.episode["segments"]
    ]
    print(f"tokenizer corpus: {len(found)} texts in {time.time() - started:.0f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
