//! The text decoder of Qwen3-VL as a tract graph, built from its tensors: plain ones here, packed
//! ones in `packed.rs`. Either may have an adapter.
//!
//! Inputs: embeddings `[1, S, hidden]`, cosines and sines `[1, S, head_dim / 2]`, and one
//! `[1, S, hidden]` for each layer that gets DeepStack features. Output: the logits after the last
//! position, `[1, 1, vocab]`. `S` is free; keys and values of the positions before are in the state.

use super::{
    adapter::{Adapter, Change},
    attention::Attention,
    failed,
    packed::Packed,
    tensors::Tensors,
    weights::Weights,
};
use crate::{
    EngineError,
    backend::{Chunk, Decoder, DecoderState},
    packing::MODEL,
    rotary::Rotary,
};
use bundle::{DECODER, Manifest};
use kernels::{Aligned, FileError, Matrix, PackedFile, With};
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::ops::{
    array::Slice,
    einsum::EinSum,
    element_wise::ElementWiseOp,
    math,
    nn::{RmsNorm, Silu},
};

/// A decoder, ready to run.
pub(super) struct TractDecoder {
    plan: Arc<TypedSimplePlan>,
    context: Arc<Context>,
}

/// What every state of a decoder shares.
struct Context {
    rotary: Rotary,
    embeddings: Embeddings,
    shape: bundle::Decoder,
}

/// `[vocab, hidden]`.
enum Embeddings {
    Plain(Vec<f32>),
    Packed(Matrix),
}

impl TractDecoder {
    /// From a file with the model's own tensors, in 16 or 32 bits; computes in 32.
    pub fn plain(
        manifest: &Manifest,
        bytes: &[u8],
        adapter: Option<&Adapter<'_>>,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let weights = Weights::parse(DECODER, bytes)?;
        let shape = &manifest.decoder;
        let embeddings =
            weights.f32(&format!("{MODEL}.embed_tokens.weight"), &[shape.vocab, shape.hidden])?;
        let graph = Builder::new(&weights, adapter, shape).graph(manifest.geometry.deepstack)?;
        Self::of(graph, Embeddings::Plain(embeddings), shape, options)
    }

    /// From a packed file, which stays in memory as it is.
    pub fn packed(
        manifest: &Manifest,
        bytes: &Arc<Aligned>,
        adapter: Option<&Adapter<'_>>,
        with: With,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let malformed =
            |e: FileError| EngineError::Weights { part: DECODER, reason: e.to_string() };
        let file = PackedFile::parse(bytes).map_err(malformed)?;
        let shape = &manifest.decoder;
        let tensors = Tensors { file: &file, part: DECODER };
        let packed = Packed { tensors, adapter, shape, with };
        let embeddings =
            packed.matrix(&format!("{MODEL}.embed_tokens"), shape.vocab, shape.hidden)?;
        let graph = packed.graph(manifest.geometry.deepstack)?;
        Self::of(graph, Embeddings::Packed(embeddings), shape, options)
    }

    fn of(
        graph: TypedModel,
        embeddings: Embeddings,
        shape: &bundle::Decoder,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let plan = graph
            .into_optimized()
            .and_then(|graph| TypedSimplePlan::new_with_options(graph, options))
            .map_err(failed("prepared the decoder"))?;
        let (rotary, shape) = (Rotary::new(shape), shape.clone());
        Ok(Self { plan, context: Arc::new(Context { rotary, embeddings, shape }) })
    }
}

impl Decoder for TractDecoder {
    fn start(&self) -> Result<Box<dyn DecoderState>, EngineError> {
        let state = self.plan.spawn().map_err(failed("started a session"))?;
        Ok(Box::new(State { state, context: self.context.clone() }))
    }

    fn embed(&self, token: u32, out: &mut [f32]) {
        let row = token as usize;
        match &self.context.embeddings {
            Embeddings::Plain(table) => out.copy_from_slice(&table[row * out.len()..][..out.len()]),
            Embeddings::Packed(table) => table.row(row, out),
        }
    }
}

struct State {
    state: TypedSimpleState,
    context: Arc<Context>,
}

impl DecoderState for State {
    fn step(&mut self, chunk: Chunk) -> Result<Vec<f32>, EngineError> {
        let Context { rotary, shape, .. } = &*self.context;
        let n = chunk.positions.len();
        let (cos, sin) = rotary.tables(&chunk.positions);
        let wide = |values| tensor(&[1, n, shape.hidden], values);
        let turn = |values| tensor(&[1, n, shape.head_dim / 2], values);
        let mut inputs = tvec![wide(chunk.embeddings), turn(cos), turn(sin)];
        inputs.extend(chunk.deepstack.into_iter().map(wide));
        let outputs = inputs
            .into_iter()
            .collect::<TractResult<TVec<TValue>>>()
            .and_then(|inputs| self.state.run(inputs))
            .map_err(failed("ran the decoder"))?;
        let logits = outputs[0].to_plain_array_view::<f32>().map_err(failed("read logits"))?;
        let logits: Vec<f32> = logits.iter().copied().collect();
        if logits.iter().all(|x| x.is_finite()) {
            Ok(logits)
        } else {
            Err(EngineError::NotFinite { part: "the decoder" })
        }
    }

    fn fork(&self) -> Box<dyn DecoderState> {
        Box::new(Self { state: self.state.clone(), context: self.context.clone() })
    }
}

/// `values` as a tensor, without a copy.
fn tensor(shape: &[usize], values: Vec<f32>) -> TractResult<TValue> {
    Ok(tract_ndarray::ArrayD::from_shape_vec(shape, values)?.into_tvalue())
}

/// Builds the graph, one method for each piece of a layer.
struct Builder<'a> {
    weights: &'a Weights<'a>,
    adapter: Option<&'a Adapter<'a>>,
    shape: &'a bundle::Decoder,
    graph: TypedModel,
    /// Positions of the chunk.
    s: TDim,
}

type Built<T = OutletId> = Result<T, EngineError>;

impl<'a> Builder<'a> {
    fn new(
        weights: &'a Weights<'a>,
        adapter: Option<&'a Adapter<'a>>,
        shape: &'a bundle::Decoder,
    ) -> Self {
        let graph = TypedModel::default();
        let s = graph.symbols.sym("S").to_dim();
        Self { weights, adapter, shape, graph, s }
    }

    fn graph(mut self, deepstack: usize) -> Built<TypedModel> {
        let (s, hidden) = (self.s.clone(), self.shape.hidden.to_dim());
        let turn = tvec![1.to_dim(), s.clone(), (self.shape.head_dim / 2).to_dim()];
        let wide = tvec![1.to_dim(), s.clone(), hidden];
        let mut x = self.source("embeddings", &wide)?;
        let cos = self.source("cos", &turn)?;
        let sin = self.source("sin", &turn)?;
        let features: Vec<OutletId> = (0..deepstack)
            .map(|k| self.source(&format!("deepstack_{k}"), &wide))
            .collect::<Built<_>>()?;
        for layer in 0..self.shape.layers {
            x = self.layer(&format!("{MODEL}.layers.{layer}"), x, cos, sin)?;
            if let Some(&feature) = features.get(layer) {
                x = self.wire(
                    &format!("{MODEL}.layers.{layer}.deepstack"),
                    math::add(),
                    &[x, feature],
                )?;
            }
        }
        // Only the last position is asked for its next token.
        let last = Slice { axis: 1, start: s.clone() - 1, end: s };
        let x = self.wire("last", last, &[x])?;
        let x = self.norm(&format!("{MODEL}.norm"), x, self.shape.hidden)?;
        let head = if self.shape.tied { format!("{MODEL}.embed_tokens") } else { "lm_head".into() };
        let logits = self.linear(&head, x, self.shape.hidden, self.shape.vocab)?;
        self.graph.select_output_outlets(&[logits]).map_err(failed("built the decoder"))?;
        Ok(self.graph)
    }

    fn layer(&mut self, name: &str, x: OutletId, cos: OutletId, sin: OutletId) -> Built {
        let bundle::Decoder { hidden, heads, kv_heads, head_dim, intermediate, .. } = *self.shape;
        let h = self.norm(&format!("{name}.input_layernorm"), x, hidden)?;
        let attention = format!("{name}.self_attn");
        let q = self.heads(&attention, "q", h, heads)?;
        let q = self.norm(&format!("{attention}.q_norm"), q, head_dim)?;
        let k = self.heads(&attention, "k", h, kv_heads)?;
        let k = self.norm(&format!("{attention}.k_norm"), k, head_dim)?;
        let v = self.heads(&attention, "v", h, kv_heads)?;
        let attend = Attention { heads, kv_heads, head_dim };
        let a = self.wire(&format!("{attention}.attend"), attend, &[q, k, v, cos, sin])?;
        let o = self.linear(&format!("{attention}.o_proj"), a, heads * head_dim, hidden)?;
        let x = self.wire(&format!("{attention}.add"), math::add(), &[x, o])?;

        let h = self.norm(&format!("{name}.post_attention_layernorm"), x, hidden)?;
        let mlp = format!("{name}.mlp");
        let gate = self.linear(&format!("{mlp}.gate_proj"), h, hidden, intermediate)?;
        let silu = ElementWiseOp(Box::new(Silu {}), None);
        let gate = self.wire(&format!("{mlp}.silu"), silu, &[gate])?;
        let up = self.linear(&format!("{mlp}.up_proj"), h, hidden, intermediate)?;
        let h = self.wire(&format!("{mlp}.gated"), math::mul(), &[gate, up])?;
        let down = self.linear(&format!("{mlp}.down_proj"), h, intermediate, hidden)?;
        self.wire(&format!("{mlp}.add"), math::add(), &[x, down])
    }

    /// `[1, S, hidden]` to `[1, S, heads, head_dim]`.
    fn heads(&mut self, attention: &str, which: &str, x: OutletId, heads: usize) -> Built {
        let bundle::Decoder { hidden, head_dim, .. } = *self.shape;
        let y = self.linear(&format!("{attention}.{which}_proj"), x, hidden, heads * head_dim)?;
        let (from, to) =
            (tvec![(heads * head_dim).to_dim()], tvec![heads.to_dim(), head_dim.to_dim()]);
        self.wire(&format!("{attention}.{which}.split"), AxisOp::Reshape(2, from, to), &[y])
    }

    /// RMS norm over the last axis.
    fn norm(&mut self, name: &str, x: OutletId, width: usize) -> Built {
        let rank = self.graph.outlet_fact(x).map_err(failed("built the decoder"))?.rank();
        let eps = Arc::new(tensor0(self.shape.rms_eps as f32));
        let y = self.wire(&format!("{name}.rms"), RmsNorm { axis: rank - 1, eps }, &[x])?;
        let mut shape = vec![1; rank];
        shape[rank - 1] = width;
        let w = self.weight(name, &[width], &shape)?;
        self.wire(&format!("{name}.scale"), math::mul(), &[y, w])
    }

    fn linear(&mut self, name: &str, x: OutletId, from: usize, to: usize) -> Built {
        let w = self.weight(name, &[to, from], &[to, from])?;
        let y = self.product(name, x, w)?;
        let adapter = self.adapter.map(|adapter| adapter.of(name)).transpose()?.flatten();
        let Some(Change { a, mut b, rank, scale }) = adapter else { return Ok(y) };
        b.iter_mut().for_each(|b| *b *= scale);
        let a = self.constant(format!("{name}.lora_A.weight"), &[rank, from], a)?;
        let b = self.constant(format!("{name}.lora_B.weight"), &[to, rank], b)?;
        let narrow = self.product(&format!("{name}.lora_A"), x, a)?;
        let added = self.product(&format!("{name}.lora_B"), narrow, b)?;
        self.wire(&format!("{name}.adapted"), math::add(), &[y, added])
    }

    /// `[1, S, columns]` by `[rows, columns]` to `[1, S, rows]`.
    fn product(&mut self, name: &str, x: OutletId, matrix: OutletId) -> Built {
        let axes = "bsk,mk->bsm".parse().map_err(failed("built the decoder"))?;
        self.wire(name, EinSum::new(axes, f32::datum_type()), &[x, matrix])
    }

    /// The tensor `name.weight`, of shape `stored` in the file, as a constant of shape `used`.
    fn weight(&mut self, name: &str, stored: &[usize], used: &[usize]) -> Built {
        let name = format!("{name}.weight");
        let values = self.weights.f32(&name, stored)?;
        self.constant(name, used, values)
    }

    fn constant(&mut self, name: String, shape: &[usize], values: Vec<f32>) -> Built {
        tract_ndarray::ArrayD::from_shape_vec(shape, values)
            .map_err(TractError::from)
            .and_then(|values| self.graph.add_const(name, values.into_tensor()))
            .map_err(failed("built the decoder"))
    }

    fn source(&mut self, name: &str, shape: &[TDim]) -> Built {
        self.graph.add_source(name, f32::fact(shape)).map_err(failed("built the decoder"))
    }

    fn wire(&mut self, name: &str, op: impl Into<Box<dyn TypedOp>>, inputs: &[OutletId]) -> Built {
        let outlets = self.graph.wire_node(name, op, inputs);
        Ok(outlets.map_err(failed("built the decoder"))?[0])
    }
}
