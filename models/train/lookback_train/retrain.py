"""Another training of a policy: a decoder for the tower of a sealed bundle.

The tower and its visual tokens stay as the bundle has them, so that several trainings differ in
what chance had to say in the decoder, and in nothing else. They share their lessons, in some of
which the policy of the bundle goes its own way.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from . import examples, idpo, oracle, sft, tokens
from .decoder import Decoder, Shape, between, part
from .export import with_decoder

LESSONS = oracle.TRAIN + 640_000
"""First seed of the lessons."""


def train(
    bundle: Path,
    out: Path,
    work: Path,
    programs: tuple[Path, Path, Path],
    amount: tuple[int, int, int],
    val_episodes: int,
    steps: int,
    seed: int,
    report: int,
    init: Path | None,
    peak: float,
    passive: bool,
    only_lessons: bool = False,
    keep: float = 0.0,
    first_shard: int = 0,
    minutes: float | None = None,
    batch_size: int = sft.BATCH,
    device: str = "cpu",
    renderers: int = 1,
) -> None:
    """Trains a decoder of `seed` from `init` or from nothing, for `steps` or as many of them as
    `minutes` allow; writes and seals `out`.

    `keep` is the share of the bundle `init` in the weights that are written ([`decoder.between`]).

    `programs` are `lookback-oracle`, `lookback-bundle` and `lookback-models`; `amount` is the
    number of shards of lessons, of those in which the policy goes its own way, and of lessons in
    each; the first has the number `first_shard`. Lessons are kept in `work`, and so is the
    training, which resumes.
    So many `renderers` make each sort of them, side by side.
    """
    binary, sealers = programs[0], programs[1:]
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    # One tower's features say nothing to another's decoder, nor one policy's ways of another's.
    folder = work / f"lessons-{manifest['parts']['decoder']['blake3'][:12]}"
    sort = "passive" if passive else "active"
    taught, own, each = amount
    if LESSONS + (first_shard + taught + own) * each > idpo.SEEDS:
        raise SystemExit(f"--first-shard {first_shard}: those seeds belong to iDPO; lower it")
    files = (bundle / "bundle.toml", bundle / part(bundle, "chat_template"))
    common = (bundle, binary, files)
    val_folder = folder / f"val-{sort}"
    lessons = (folder / sort, *common, LESSONS)
    sorts = [(range(first_shard, first_shard + taught), None)]
    if not passive:
        sorts.append((range(first_shard + taught, first_shard + taught + own), bundle))
    rendering = [
        examples.render_in_background(*lessons, share, each, pupil, passive, device)
        for numbers, pupil in sorts
        for share in examples.shares(numbers, renderers)
    ]
    val_lessons = (oracle.VAL, range(1), val_episodes, None, passive, device)
    examples.render_shards(val_folder, *common, *val_lessons)
    if only_lessons:
        for renderer in rendering:
            renderer.join()
        return
    tokenizer = tokens.load(bundle / part(bundle, "tokenizer"))
    learnt = work / f"policy-{sort}-{seed}.pt"
    policy = sft.train(
        examples.DataSet(folder / sort, tokenizer),
        examples.DataSet(val_folder, tokenizer),
        Shape.of_manifest(bundle / "bundle.toml"),
        None,
        learnt,
        steps,
        seed,
        report,
        init=init,
        peak=peak,
        minutes=minutes,
        batch_size=batch_size,
        device=device,
    )
    for renderer in rendering:
        renderer.terminate()
    decoder = policy.decoder.cpu()
    if keep > 0.0 and init is not None:
        decoder = between(Decoder.of_bundle(init), decoder, keep)
    with_decoder(bundle, decoder, sealers, out)
