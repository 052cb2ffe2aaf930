//! The decoder's graph over packed weights: few operators, each of which does much.
//!
//! Inputs and output are those of the plain graph.

use super::{
    adapter::{Adapter, Change},
    failed,
    tensors::Tensors,
};
use crate::{EngineError, packing::MODEL};
use kernels::{Attend, Attention, Linear, LowRank, Matrix, Norm, Precision, Sight, SwiGlu, With};
use tract_core::internal::*;
use tract_core::ops::{array::Slice, math};

/// Packed weights, what an adapter adds to their products, and the shape that they should have.
pub(super) struct Packed<'a> {
    pub tensors: Tensors<'a>,
    pub adapter: Option<&'a Adapter<'a>>,
    pub shape: &'a bundle::Decoder,
    pub with: With,
}

type Built = Result<OutletId, EngineError>;

impl Packed<'_> {
    /// The matrix `name.weight`.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, EngineError> {
        self.tensors.matrix(&format!("{name}.weight"), rows, columns)
    }

    /// The numbers `name.weight`.
    fn numbers(&self, name: &str, count: usize) -> Result<Vec<f32>, EngineError> {
        self.tensors.numbers(&format!("{name}.weight"), count)
    }

    pub fn graph(&self, deepstack: usize) -> Result<TypedModel, EngineError> {
        let &bundle::Decoder { hidden, head_dim, layers, vocab, tied, .. } = self.shape;
        let mut graph = TypedModel::default();
        let s = graph.symbols.sym("S").to_dim();
        let source = |graph: &mut TypedModel, name: &str, width: usize| {
            let fact = f32::fact([1.to_dim(), s.clone(), width.to_dim()]);
            graph.add_source(name, fact).map_err(failed("built the decoder"))
        };
        let mut x = source(&mut graph, "x", hidden)?;
        let turns =
            [source(&mut graph, "cos", head_dim / 2)?, source(&mut graph, "sin", head_dim / 2)?];
        let features = (0..deepstack)
            .map(|k| source(&mut graph, &format!("deepstack_{k}"), hidden))
            .collect::<Result<Vec<_>, _>>()?;
        for layer in 0..layers {
            let name = format!("{MODEL}.layers.{layer}");
            x = self.layer(&mut graph, &name, x, turns)?;
            if let Some(&feature) = features.get(layer) {
                let name = format!("{name}.deepstack");
                x = wire(&mut graph, &name, math::add(), &[x, feature])?;
            }
        }
        // Only the last position is asked for its next token.
        let last = Slice { axis: 1, start: s.clone() - 1, end: s };
        let x = wire(&mut graph, "last", last, &[x])?;
        let x = self.norm(&mut graph, &format!("{MODEL}.norm"), x)?;
        let head = if tied { format!("{MODEL}.embed_tokens") } else { "lm_head".into() };
        let logits = self.linear(&mut graph, "logits", x, &[(&head, vocab)], hidden)?;
        graph.select_output_outlets(&[logits]).map_err(failed("built the decoder"))?;
        Ok(graph)
    }

    fn layer(
        &self,
        graph: &mut TypedModel,
        name: &str,
        x: OutletId,
        [cos, sin]: [OutletId; 2],
    ) -> Built {
        let &bundle::Decoder { hidden, heads, kv_heads, head_dim, intermediate, .. } = self.shape;
        let h = self.norm(graph, &format!("{name}.input_layernorm"), x)?;
        let of = |part: &str| format!("{name}.self_attn.{part}");
        let products = [
            (&*of("q_proj"), heads * head_dim),
            (&*of("k_proj"), kv_heads * head_dim),
            (&*of("v_proj"), kv_heads * head_dim),
        ];
        let qkv = self.linear(graph, &of("qkv"), h, &products, hidden)?;
        let attention = Attention {
            heads,
            kv_heads,
            head_dim,
            sight: Sight::Past,
            q_norm: self.numbers(&of("q_norm"), head_dim)?,
            k_norm: self.numbers(&of("k_norm"), head_dim)?,
            eps: self.shape.rms_eps as f32,
        };
        let attend = Attend::new(attention, Precision::Bf16, self.with.clone());
        let a = wire(graph, &of("attend"), attend, &[qkv, cos, sin])?;
        let o = self.linear(graph, &of("o"), a, &[(&of("o_proj"), hidden)], heads * head_dim)?;
        let x = wire(graph, &of("add"), math::add(), &[x, o])?;

        let h = self.norm(graph, &format!("{name}.post_attention_layernorm"), x)?;
        let of = |part: &str| format!("{name}.mlp.{part}");
        let products = [(&*of("gate_proj"), intermediate), (&*of("up_proj"), intermediate)];
        let h = self.linear(graph, &of("gate_up"), h, &products, hidden)?;
        let gated = SwiGlu::new(intermediate, self.with.clone());
        let h = wire(graph, &of("gated"), gated, &[h])?;
        let down =
            self.linear(graph, &of("down"), h, &[(&of("down_proj"), hidden)], intermediate)?;
        wire(graph, &of("add"), math::add(), &[x, down])
    }

    fn norm(&self, graph: &mut TypedModel, name: &str, x: OutletId) -> Built {
        let weight = self.numbers(name, self.shape.hidden)?;
        let norm = Norm::new(weight, self.shape.rms_eps as f32, self.with.clone());
        wire(graph, name, norm, &[x])
    }

    /// Products of the matrices of these names and rows.
    fn linear(
        &self,
        graph: &mut TypedModel,
        name: &str,
        x: OutletId,
        matrices: &[(&str, usize)],
        columns: usize,
    ) -> Built {
        let products = matrices
            .iter()
            .map(|(name, rows)| self.matrix(name, *rows, columns))
            .collect::<Result<Vec<_>, _>>()?;
        let linear = Linear::new(products, self.with.clone());
        let added = self.adapter.map(|adapter| low_rank(adapter, matrices, columns));
        let linear = match added.transpose()?.flatten() {
            Some(added) => linear.adapted(added),
            None => linear,
        };
        wire(graph, name, linear, &[x])
    }
}

/// What an adapter adds to products that share their inputs, if anything.
fn low_rank(
    adapter: &Adapter<'_>,
    matrices: &[(&str, usize)],
    columns: usize,
) -> Result<Option<LowRank>, EngineError> {
    let changes = matrices
        .iter()
        .map(|(name, _)| adapter.of(name))
        .collect::<Result<Vec<Option<Change>>, _>>()?;
    if changes.iter().all(Option::is_none) {
        return Ok(None);
    }
    let of: Vec<_> = matrices
        .iter()
        .zip(&changes)
        .map(|((_, rows), change)| (*rows, change.as_ref().map(Change::factors)))
        .collect();
    let names = || matrices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("', '");
    let unfit = |e| EngineError::Adapter { reason: format!("'{}': {e}", names()) };
    LowRank::new(columns, &of).map(Some).map_err(unfit)
}

fn wire(
    graph: &mut TypedModel,
    name: &str,
    op: impl Into<Box<dyn TypedOp>>,
    inputs: &[OutletId],
) -> Built {
    let outlets = graph.wire_node(name, op, inputs);
    Ok(outlets.map_err(failed("built the decoder"))?[0])
}
