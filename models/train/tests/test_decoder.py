"""The decoder: interleaved M-RoPE, positions of a transcript, DeepStack, causality."""

import math
from pathlib import Path

import pytest
import torch

from lookback_train import retrain
from lookback_train.decoder import Decoder, Shape, between, mrope, walk_positions
from lookback_train.nano import ROOT

TINY = Shape(
    hidden=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate=48,
    vocab=50,
    mrope_section=(2, 1, 1),
)


def decoder(seed: int = 1) -> Decoder:
    torch.manual_seed(seed)
    made = Decoder(TINY).eval()
    # The default init is so small that attention hardly matters; positions then would not either.
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    return made


def axes(shape: Shape) -> list[int]:
    """Which of (t, h, w) each frequency turns with, read off the angles."""
    found = []
    units = torch.eye(3, dtype=torch.long).unsqueeze(0)
    _, sin = mrope(units, shape)
    for i in range(shape.head_dim // 2):
        turning = [axis for axis in range(3) if abs(sin[0, 0, axis, i].item()) > 1e-9]
        assert len(turning) == 1
        found += turning
    return found


def test_frequencies_take_the_axes_in_turn_until_the_section_is_used_up() -> None:
    assert axes(TINY) == [0, 1, 2, 0]
    nano = Shape(head_dim=32, mrope_section=(6, 5, 5))
    assert axes(nano) == [0, 1, 2] * 5 + [0]
    two_b = Shape(head_dim=128, mrope_section=(24, 20, 20), rope_theta=5e6)
    assert axes(two_b) == [0, 1, 2] * 20 + [0] * 4


def test_angles_are_position_times_falling_frequency() -> None:
    cos, sin = mrope(torch.tensor([[[5, 7, 11]]]), TINY)
    # theta 10000 and a head of 8: frequencies 1, 0.1, 0.01, 0.001, on t, h, w, t; then once more.
    angles = [5.0, 0.7, 0.11, 0.005] * 2
    assert cos.shape == sin.shape == (1, 1, 1, 8)
    assert cos[0, 0, 0].tolist() == pytest.approx([math.cos(a) for a in angles], abs=1e-6)
    assert sin[0, 0, 0].tolist() == pytest.approx([math.sin(a) for a in angles], abs=1e-6)


def test_a_pairs_tokens_share_their_time_and_text_goes_on_after_the_longer_side() -> None:
    walked = walk_positions([False] * 23 + [True] * 24 + [False] * 2, (4, 6))
    assert walked[22] == (22, 22, 22)
    block = walked[23:47]
    assert {t for t, _, _ in block} == {23}
    assert sorted({h for _, h, _ in block}) == [23, 24, 25, 26]
    assert sorted({w for _, _, w in block}) == [23, 24, 25, 26, 27, 28]
    assert block[6] == (23, 24, 23), "raster order: the second row begins after six columns"
    assert walked[47:] == [(29, 29, 29), (30, 30, 30)]


def test_two_pairs_in_a_row_are_two_blocks() -> None:
    walked = walk_positions([True] * 6 + [False] + [True] * 6 + [False], (2, 3))
    assert walked[6] == (3, 3, 3)
    assert walked[7:13] == [(4, 4, 4), (4, 4, 5), (4, 4, 6), (4, 5, 4), (4, 5, 5), (4, 5, 6)]
    assert walked[13] == (7, 7, 7)
    assert len(walked) == 14


def text_positions(length: int) -> torch.Tensor:
    return torch.arange(length).view(1, length, 1).expand(1, length, 3)


def test_what_comes_later_changes_nothing_before_it() -> None:
    model, x = decoder(), torch.randn(1, 9, TINY.hidden)
    changed = x.clone()
    changed[:, 6:] += 1.0
    with torch.inference_mode():
        one = model(x, text_positions(9), [])
        two = model(changed, text_positions(9), [])
    assert torch.allclose(one[:, :6], two[:, :6], atol=1e-5)
    assert not torch.allclose(one[:, 6:], two[:, 6:], atol=1e-2)


def test_only_differences_of_positions_matter() -> None:
    model, x = decoder(), torch.randn(1, 7, TINY.hidden)
    with torch.inference_mode():
        near = model(x, text_positions(7), [])
        far = model(x, text_positions(7) + 100, [])
        stretched = model(x, text_positions(7) * 3, [])
    assert torch.allclose(near, far, atol=1e-4)
    assert not torch.allclose(near, stretched, atol=1e-2)


def test_deepstack_is_added_after_the_output_of_its_layer() -> None:
    model, x = decoder(), torch.randn(1, 5, TINY.hidden)
    deep = [torch.randn(1, 5, TINY.hidden) for _ in range(2)]
    positions = text_positions(5)
    with torch.inference_mode():
        cos, sin = mrope(positions, TINY)
        y = model.layers[0](x, cos, sin) + deep[0]
        y = model.layers[1](y, cos, sin) + deep[1]
        y = model.norm(model.layers[2](y, cos, sin))
        assert torch.allclose(model(x, positions, deep), y, atol=1e-5)
        assert not torch.allclose(model(x, positions, deep[:1]), y, atol=1e-2)


def test_a_checkpoint_has_the_names_that_the_engine_reads() -> None:
    names = set(decoder().checkpoint())
    assert "model.language_model.embed_tokens.weight" in names
    assert "model.language_model.norm.weight" in names
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
        assert f"model.language_model.layers.2.self_attn.{part}.weight" in names
    for part in ("gate_proj", "up_proj", "down_proj"):
        assert f"model.language_model.layers.0.mlp.{part}.weight" in names
    assert not any("lm_head" in name for name in names), "the head is tied"


def test_it_is_the_text_model_of_qwen3_vl() -> None:
    reason = "transformers is not installed: the trainer does without it, this comparison does not"
    pytest.importorskip("transformers", reason=reason)
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

    s, ours = TINY, decoder()
    theirs = Qwen3VLTextModel(
        Qwen3VLTextConfig(
            vocab_size=s.vocab,
            hidden_size=s.hidden,
            intermediate_size=s.intermediate,
            num_hidden_layers=s.layers,
            num_attention_heads=s.heads,
            num_key_value_heads=s.kv_heads,
            head_dim=s.head_dim,
            rms_norm_eps=s.rms_eps,
            pad_token_id=0,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": s.rope_theta,
                "mrope_section": list(s.mrope_section),
                "mrope_interleaved": True,
            },
        )
    ).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not missing and not unexpected
    pads = [False] * 4 + [True] * 6 + [False] * 3
    positions = torch.tensor([walk_positions(pads, (2, 3))])
    is_pad = torch.tensor([pads])
    x = torch.randn(1, len(pads), s.hidden)
    seen = [torch.randn(6, s.hidden) for _ in range(2)]
    deep = [torch.zeros_like(x).masked_scatter(is_pad.unsqueeze(-1), d) for d in seen]
    with torch.inference_mode():
        mine = ours(x, positions, deep)
        reference = theirs(
            inputs_embeds=x,
            position_ids=positions.permute(2, 0, 1),
            visual_pos_masks=is_pad,
            deepstack_visual_embeds=seen,
            use_cache=False,
        ).last_hidden_state
    assert torch.allclose(mine, reference, atol=2e-5)


def test_between_two_decoders_is_either_at_the_ends_and_neither_in_the_middle() -> None:
    before, after = decoder(1), decoder(2)
    for keep, end in ((1.0, before), (0.0, after)):
        mixed = between(before, after, keep).state_dict()
        assert all(torch.equal(mixed[name], value) for name, value in end.state_dict().items())
    mixed = between(before, after, 0.25).state_dict()
    name = "layers.0.mlp.up_proj.weight"
    expected = 0.25 * before.state_dict()[name] + 0.75 * after.state_dict()[name]
    torch.testing.assert_close(mixed[name], expected)
    assert not torch.equal(after.state_dict()[name], mixed[name]), "the trained one stays as it is"


def test_lessons_never_come_from_the_seeds_of_idpo(tmp_path: Path) -> None:
    bundle = ROOT / "models/nano"
    with pytest.raises(SystemExit, match="--first-shard 33600"):
        retrain.train(
            bundle,
            tmp_path / "out",
            tmp_path,
            (tmp_path, tmp_path),
            (1, 0, 100),
            1,
            1,
            0,
            1,
            None,
            1e-3,
            False,
            first_shard=33600,
        )
