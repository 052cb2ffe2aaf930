//! The text decoder of Qwen3-VL as a tract graph, built from its tensors: plain ones here, packed
//! ones in `packed.rs`. Either may have an adapter. What tract's other runtimes know are its own
//! operators, so the graph can be had of those as well, from plain tensors or packed ones.
//!
//! Inputs: embeddings `[1, S, hidden]`, cosines and sines `[1, S, head_dim / 2]`, and one
//! `[1, S, hidden]` for each layer that gets DeepStack features. Output: the logits after the last
//! position, `[1, 1, vocab]`. `S` is free; keys and values of the positions before are in the state.

use super::{
    ID,
    adapter::{Adapter, Change},
    attention::Attention,
    failed,
    packed::Packed,
    tensors::Tensors,
    weights::Weights,
};
use crate::{
    EngineError,
    backend::{Chunk, Decoder, DecoderState, Refusal},
    packing::{MODEL, packed_tensors},
    rotary::Rotary,
};
use bundle::{DECODER, Manifest};
use kernels::{Aligned, FileError, Format, Matrix, PackedFile, With};
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::ops::{
    array::{Slice, TypedConcat},
    cast::cast,
    einsum::EinSum,
    element_wise::ElementWiseOp,
    konst::Const,
    math,
    nn::{RmsNorm, Silu},
};
use tract_linalg::block_quant::{BlockQuantFact, BlockQuantStorage, Q4_0};
use tract_transformers::ops::{apply_rope::ApplyRope, dyn_kv_cache::DynKeyValueCache, sdpa::Sdpa};

/// A decoder, ready to run.
pub(crate) struct TractDecoder {
    plan: Arc<TypedSimplePlan>,
    context: Arc<Context>,
}

/// What a decoder in tract's own operators runs on.
pub(crate) struct Host<'a> {
    pub runtime: &'a dyn Runtime,
    /// Its id, for errors.
    pub backend: String,
    /// Whether a clone of a state shares its memory of keys and values.
    pub shares: bool,
}

/// What every state of a decoder shares.
struct Context {
    rotary: Rotary,
    embeddings: Embeddings,
    shape: bundle::Decoder,
    /// Id of the backend, for errors.
    backend: String,
    /// Whether a clone of a state shares its memory of keys and values, so that a fork has to copy it.
    shares: bool,
}

/// `[vocab, hidden]`.
enum Embeddings {
    Plain(Vec<f32>),
    Packed(Matrix),
}

impl TractDecoder {
    /// From a file with the model's own tensors, in 16 or 32 bits; computes in 32.
    pub(super) fn plain(
        manifest: &Manifest,
        bytes: &[u8],
        adapter: Option<&Adapter<'_>>,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let weights = Weights::parse(DECODER, bytes)?;
        let shape = &manifest.decoder;
        let embeddings = Embeddings::plain(&weights, shape)?;
        let source = Source::Plain(weights);
        let builder = Builder::new(source, Attending::Ours, adapter, shape);
        let plan = optimized(builder.graph(manifest.geometry.deepstack)?, options)?;
        Ok(Self::of(plan, embeddings, shape, ID.to_owned(), false))
    }

    /// From a packed file, which stays in memory as it is.
    pub(super) fn packed(
        manifest: &Manifest,
        bytes: &Arc<Aligned>,
        adapter: Option<&Adapter<'_>>,
        with: With,
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let file = PackedFile::parse(bytes).map_err(malformed)?;
        let shape = &manifest.decoder;
        let tensors = Tensors { file: &file, part: DECODER };
        let embeddings = Embeddings::packed(&tensors, shape)?;
        let packed = Packed { tensors, adapter, shape, with };
        let plan = optimized(packed.graph(manifest.geometry.deepstack)?, options)?;
        Ok(Self::of(plan, embeddings, shape, ID.to_owned(), false))
    }

    /// In tract's own operators, for any of its runtimes. Weights of 4 bits stay so; those of 8 bits are declined, since no
    /// accelerator of tract's multiplies with them.
    pub fn standard(
        manifest: &Manifest,
        bytes: &Arc<Aligned>,
        adapter: Option<&[u8]>,
        host: Host<'_>,
        options: &RunOptions,
    ) -> Result<Self, Refusal> {
        let shape = &manifest.decoder;
        let adapter = adapter.map(|bytes| Adapter::parse(bytes, shape)).transpose()?;
        let file = match PackedFile::is(bytes) {
            true => Some(PackedFile::parse(bytes).map_err(malformed)?),
            false => None,
        };
        let (embeddings, source) = match &file {
            Some(file) => {
                let named = packed_tensors(shape, Format::Q4_0);
                let matrices = named.iter().filter_map(|(name, _)| file.matrix(name));
                if matrices.clone().any(|matrix| matrix.format() != Format::Q4_0) {
                    let why = "its weights are not of 4 bits: pack it as q4_0";
                    return Err(Refusal::Decline(why.into()));
                }
                let tensors = Tensors { file, part: DECODER };
                (Embeddings::packed(&tensors, shape)?, Source::Packed(tensors))
            }
            None => {
                let weights = Weights::parse(DECODER, bytes)?;
                (Embeddings::plain(&weights, shape)?, Source::Plain(weights))
            }
        };
        let builder = Builder::new(source, Attending::Tracts, adapter.as_ref(), shape);
        let graph = builder.graph(manifest.geometry.deepstack)?;
        let unable = |e: TractError| Refusal::Decline(format!("{e:#}"));
        let runnable = host.runtime.prepare_with_options(graph, options).map_err(unable)?;
        let plan = runnable.typed_plan().cloned();
        let plan = plan.ok_or_else(|| Refusal::Decline("it has made no plan".into()))?;
        Ok(Self::of(plan, embeddings, shape, host.backend, host.shares))
    }

    fn of(
        plan: Arc<TypedSimplePlan>,
        embeddings: Embeddings,
        shape: &bundle::Decoder,
        backend: String,
        shares: bool,
    ) -> Self {
        let (rotary, shape) = (Rotary::new(shape), shape.clone());
        Self { plan, context: Arc::new(Context { rotary, embeddings, shape, backend, shares }) }
    }
}

impl Embeddings {
    fn plain(weights: &Weights<'_>, shape: &bundle::Decoder) -> Result<Self, EngineError> {
        let name = format!("{MODEL}.embed_tokens.weight");
        Ok(Self::Plain(weights.f32(&name, &[shape.vocab, shape.hidden])?))
    }

    fn packed(tensors: &Tensors<'_>, shape: &bundle::Decoder) -> Result<Self, EngineError> {
        let name = format!("{MODEL}.embed_tokens.weight");
        Ok(Self::Packed(tensors.matrix(&name, shape.vocab, shape.hidden)?))
    }
}

fn malformed(e: FileError) -> EngineError {
    EngineError::Weights { part: DECODER, reason: e.to_string() }
}

fn optimized(graph: TypedModel, options: &RunOptions) -> Result<Arc<TypedSimplePlan>, EngineError> {
    graph
        .into_optimized()
        .and_then(|graph| TypedSimplePlan::new_with_options(graph, options))
        .map_err(failed("prepared the decoder"))
}

impl Decoder for TractDecoder {
    fn start(&self) -> Result<Box<dyn DecoderState>, EngineError> {
        let context = self.context.clone();
        let state = self.plan.spawn().map_err(|e| context.failed("started a session", &e))?;
        Ok(Box::new(State { state: Ok(state), seen: 0, context }))
    }

    fn embed(&self, token: u32, out: &mut [f32]) {
        let row = token as usize;
        match &self.context.embeddings {
            Embeddings::Plain(table) => out.copy_from_slice(&table[row * out.len()..][..out.len()]),
            Embeddings::Packed(table) => table.row(row, out),
        }
    }
}

impl Context {
    fn failed(&self, doing: &'static str, error: &TractError) -> EngineError {
        EngineError::Run { backend: self.backend.clone(), doing, reason: format!("{error:#}") }
    }
}

struct State {
    /// Or why it could not be copied.
    state: Result<TypedSimpleState, String>,
    /// Positions that it has seen.
    seen: usize,
    context: Arc<Context>,
}

impl DecoderState for State {
    fn step(&mut self, chunk: Chunk) -> Result<Vec<f32>, EngineError> {
        let Self { state, seen, context } = self;
        let Context { rotary, shape, .. } = &**context;
        let n = chunk.positions.len();
        let (cos, sin) = rotary.tables(&chunk.positions);
        let wide = |values| tensor(&[1, n, shape.hidden], values);
        let turn = |values| tensor(&[1, n, shape.head_dim / 2], values);
        let mut inputs = tvec![wide(chunk.embeddings), turn(cos), turn(sin)];
        inputs.extend(chunk.deepstack.into_iter().map(wide));
        let state = state.as_mut().map_err(|why| {
            let (backend, reason) = (context.backend.clone(), why.clone());
            EngineError::Run { backend, doing: "copied a session", reason }
        })?;
        *seen += n;
        let outputs = inputs
            .into_iter()
            .collect::<TractResult<TVec<TValue>>>()
            .and_then(|inputs| state.run(inputs))
            .map_err(|e| context.failed("ran the decoder", &e))?;
        let logits = outputs[0].to_plain_array_view::<f32>();
        let logits = logits.map_err(|e| context.failed("read logits", &e))?;
        let logits: Vec<f32> = logits.iter().copied().collect();
        if logits.iter().all(|x| x.is_finite()) {
            Ok(logits)
        } else {
            Err(EngineError::NotFinite { part: "the decoder" })
        }
    }

    fn fork(&self) -> Box<dyn DecoderState> {
        let Self { state, seen, context } = self;
        let state = match state {
            Ok(state) if context.shares && *seen > 0 => {
                copied(state).map_err(|error| format!("{error:#}"))
            }
            state => state.clone(),
        };
        Box::new(Self { state, seen: *seen, context: context.clone() })
    }
}

/// A copy with keys and values of its own.
fn copied(state: &TypedSimpleState) -> TractResult<TypedSimpleState> {
    let mut copy = state.clone();
    let TypedSimpleState { op_states, turn_state, .. } = &mut copy;
    for memory in op_states.iter_mut().flatten().filter(|state| state.has_init_tensor_fact()) {
        let mut held = Vec::new();
        memory.save_to(&mut held)?;
        memory.load_from(turn_state, &mut held.into_iter())?;
    }
    Ok(copy)
}

/// `values` as a tensor, without a copy.
fn tensor(shape: &[usize], values: Vec<f32>) -> TractResult<TValue> {
    Ok(tract_ndarray::ArrayD::from_shape_vec(shape, values)?.into_tvalue())
}

/// Where the weights of a graph come from.
enum Source<'a> {
    Plain(Weights<'a>),
    Packed(Tensors<'a>),
}

/// Whose operators attend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attending {
    Ours,
    /// Those that all of tract's runtimes know.
    Tracts,
}

/// Builds the graph, one method for each piece of a layer.
struct Builder<'a> {
    source: Source<'a>,
    attending: Attending,
    adapter: Option<&'a Adapter<'a>>,
    shape: &'a bundle::Decoder,
    graph: TypedModel,
    /// Positions of the chunk.
    s: TDim,
}

type Built<T = OutletId> = Result<T, EngineError>;

impl<'a> Builder<'a> {
    fn new(
        source: Source<'a>,
        attending: Attending,
        adapter: Option<&'a Adapter<'a>>,
        shape: &'a bundle::Decoder,
    ) -> Self {
        let graph = TypedModel::default();
        let s = graph.symbols.sym("S").to_dim();
        Self { source, attending, adapter, shape, graph, s }
    }

    fn graph(mut self, deepstack: usize) -> Built<TypedModel> {
        let (s, hidden) = (self.s.clone(), self.shape.hidden.to_dim());
        let turn = tvec![1.to_dim(), s.clone(), (self.shape.head_dim / 2).to_dim()];
        let wide = tvec![1.to_dim(), s.clone(), hidden];
        let mut x = self.source("embeddings", &wide)?;
        let turns = [self.source("cos", &turn)?, self.source("sin", &turn)?];
        let features: Vec<OutletId> = (0..deepstack)
            .map(|k| self.source(&format!("deepstack_{k}"), &wide))
            .collect::<Built<_>>()?;
        let turns = match self.attending {
            Attending::Ours => turns,
            Attending::Tracts => {
                [self.whole_turn("cos", turns[0])?, self.whole_turn("sin", turns[1])?]
            }
        };
        for layer in 0..self.shape.layers {
            x = self.layer(&format!("{MODEL}.layers.{layer}"), x, turns)?;
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

    fn layer(&mut self, name: &str, x: OutletId, turns: [OutletId; 2]) -> Built {
        let bundle::Decoder { hidden, heads, kv_heads, head_dim, intermediate, .. } = *self.shape;
        let h = self.norm(&format!("{name}.input_layernorm"), x, hidden)?;
        let attention = format!("{name}.self_attn");
        let q = self.heads(&attention, "q", h, heads)?;
        let q = self.norm(&format!("{attention}.q_norm"), q, head_dim)?;
        let k = self.heads(&attention, "k", h, kv_heads)?;
        let k = self.norm(&format!("{attention}.k_norm"), k, head_dim)?;
        let v = self.heads(&attention, "v", h, kv_heads)?;
        let a = match self.attending {
            Attending::Ours => {
                let attend = Attention { heads, kv_heads, head_dim };
                let inputs = [q, k, v, turns[0], turns[1]];
                self.wire(&format!("{attention}.attend"), attend, &inputs)?
            }
            Attending::Tracts => self.attend(&attention, [q, k, v], turns)?,
        };
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

    /// `[1, S, head_dim / 2]`, of each pair of numbers that turn together, to `[1, 1, S, head_dim]`, of each number.
    fn whole_turn(&mut self, name: &str, half: OutletId) -> Built {
        let twice = self.wire(&format!("{name}.twice"), TypedConcat { axis: 2 }, &[half, half])?;
        self.wire(&format!("{name}.of_heads"), AxisOp::Add(1), &[twice])
    }

    /// Causal attention over all that was seen, in tract's operators. Where its kernels for accelerators take 16 bits
    /// anyway, keys and values are kept in 16 bits.
    fn attend(&mut self, name: &str, qkv: [OutletId; 3], [cos, sin]: [OutletId; 2]) -> Built {
        let bundle::Decoder { heads, kv_heads, head_dim, .. } = *self.shape;
        let kind = match head_dim {
            64 | 128 => f16::datum_type(),
            _ => f32::datum_type(),
        };
        let past = self.graph.symbols.sym("P").to_dim();
        let mut inputs = tvec![];
        for (which, x) in ["q", "k", "v"].into_iter().zip(qkv) {
            let name = format!("{name}.{which}");
            let mut x = self.wire(&format!("{name}.by_head"), AxisOp::Move(1, 2), &[x])?;
            if which != "v" {
                x = self.wire(&format!("{name}.turned"), ApplyRope, &[x, cos, sin])?;
            }
            if kind != f32::datum_type() {
                x = self.wire(&format!("{name}.narrow"), cast(kind), &[x])?;
            }
            if which != "q" {
                let name = format!("{name}.kept");
                let rows = |n: &TDim| {
                    kind.fact([1.to_dim(), kv_heads.to_dim(), n.clone(), head_dim.to_dim()])
                };
                let kept = DynKeyValueCache {
                    name: name.clone(),
                    axis: 2,
                    past_sequence_fact: rows(&past),
                    input_sequence_fact: rows(&self.s),
                };
                x = self.wire(&name, kept, &[x])?;
            }
            inputs.push(x);
        }
        let attend = Sdpa {
            scale: Some(tensor0(1.0 / (head_dim as f32).sqrt())),
            datum_type: kind,
            acc_datum_type: f32::datum_type(),
            is_causal: true,
        };
        let mut x = self.wire(&format!("{name}.attend"), attend, &inputs)?;
        if kind != f32::datum_type() {
            x = self.wire(&format!("{name}.wide"), cast(f32::datum_type()), &[x])?;
        }
        let x = self.wire(&format!("{name}.by_position"), AxisOp::Move(2, 1), &[x])?;
        let (from, to) =
            (tvec![heads.to_dim(), head_dim.to_dim()], tvec![(heads * head_dim).to_dim()]);
        self.wire(&format!("{name}.joined"), AxisOp::Reshape(2, from, to), &[x])
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
        let y = match &self.source {
            Source::Plain(_) => {
                let w = self.weight(name, &[to, from], &[to, from])?;
                self.product(name, x, w)?
            }
            Source::Packed(tensors) => {
                let matrix = tensors.matrix(&format!("{name}.weight"), to, from)?;
                self.packed_product(name, x, &matrix)?
            }
        };
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

    /// `[1, S, columns]` by a matrix of 4 bits to `[1, S, rows]`.
    fn packed_product(&mut self, name: &str, x: OutletId, matrix: &Matrix) -> Built {
        let built = || failed("built the decoder");
        let shape = [1, matrix.rows(), matrix.columns()];
        let kind = BlockQuantFact::new(Box::new(Q4_0), shape[..].into());
        let weights = Blob::from_bytes_alignment(&matrix.ggml(), 128)
            .and_then(|bytes| {
                BlockQuantStorage::new(Box::new(Q4_0), shape[1], shape[2], Arc::new(bytes))
            })
            .map(|blocks| blocks.into_tensor_with_shape(f32::datum_type(), &shape))
            .and_then(|tensor| Const::new_with_exotic_fact(Arc::new(tensor), Box::new(kind)))
            .map_err(built())?;
        let weights = self.wire(&format!("{name}.weight"), weights, &[])?;
        let axes = "bsk,Gmk->bsm".parse().map_err(built())?;
        self.wire(name, EinSum::new(axes, f32::datum_type()), &[x, weights])
    }

    /// The tensor `name.weight`, of shape `stored` in the file, as a constant of shape `used`.
    fn weight(&mut self, name: &str, stored: &[usize], used: &[usize]) -> Built {
        let name = format!("{name}.weight");
        let values = match &self.source {
            Source::Plain(weights) => weights.f32(&name, stored)?,
            Source::Packed(tensors) => tensors.numbers(&name, stored.iter().product())?,
        };
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
