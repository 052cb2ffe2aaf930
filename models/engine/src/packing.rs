//! What a packed decoder is made of.

use bundle::Decoder;
use kernels::{Content, Format};

/// What the names of all tensors but an output head of its own begin with.
pub(crate) const MODEL: &str = "model.language_model";

/// The tensors of a packed decoder of that shape, by Hugging Face's names: matrices in `format`,
/// norms as numbers, in the order of the file.
pub fn packed_tensors(decoder: &Decoder, format: Format) -> Vec<(String, Content)> {
    let &Decoder { hidden, heads, kv_heads, head_dim, intermediate, vocab, .. } = decoder;
    let matrix = |rows, columns| Content::Matrix { format, rows, columns };
    let mut tensors = vec![(format!("{MODEL}.embed_tokens"), matrix(vocab, hidden))];
    if !decoder.tied {
        tensors.push(("lm_head".into(), matrix(vocab, hidden)));
    }
    tensors.push((format!("{MODEL}.norm"), Content::Numbers(hidden)));
    for layer in 0..decoder.layers {
        let parts = [
            ("self_attn.q_proj", matrix(heads * head_dim, hidden)),
            ("self_attn.k_proj", matrix(kv_heads * head_dim, hidden)),
            ("self_attn.v_proj", matrix(kv_heads * head_dim, hidden)),
            ("self_attn.o_proj", matrix(hidden, heads * head_dim)),
            ("mlp.gate_proj", matrix(intermediate, hidden)),
            ("mlp.up_proj", matrix(intermediate, hidden)),
            ("mlp.down_proj", matrix(hidden, intermediate)),
            ("input_layernorm", Content::Numbers(hidden)),
            ("post_attention_layernorm", Content::Numbers(hidden)),
            ("self_attn.q_norm", Content::Numbers(head_dim)),
            ("self_attn.k_norm", Content::Numbers(head_dim)),
        ];
        let name = |part: &str| format!("{MODEL}.layers.{layer}.{part}");
        tensors.extend(parts.map(|(part, content)| (name(part), content)));
    }
    let named = tensors.into_iter().map(|(name, content)| (format!("{name}.weight"), content));
    kernels::Writer::<()>::order(named.collect())
}
