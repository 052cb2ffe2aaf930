//! The kernels as operators of a tract graph, all over `[1, S, width]` with a free `S`.

use crate::{
    Activations, Attention, LowRank, Matrix, Memory, Precision, Threads, Turns, Variant, multiply,
    rms_norm, swiglu,
};
use std::sync::Arc;
use tract_core::internal::*;

/// What an operator runs with.
#[derive(Clone, Debug)]
pub struct With {
    /// The threads of the engine.
    pub threads: Threads,
    /// What multiplies.
    pub variant: Variant,
}

/// Products of quantised matrices with the same input: `[1, S, columns]` to `[1, S, Σ rows]`.
#[derive(Clone, Debug)]
pub struct Linear {
    matrices: Arc<[Matrix]>,
    adapter: Option<Arc<LowRank>>,
    with: With,
}

impl Linear {
    /// One product, or several one after the other in each row.
    pub fn new(matrices: impl Into<Arc<[Matrix]>>, with: With) -> Self {
        Self { matrices: matrices.into(), adapter: None, with }
    }

    /// With what an adapter adds to the products.
    pub fn adapted(self, adapter: LowRank) -> Self {
        Self { adapter: Some(adapter.into()), ..self }
    }
}

/// RMS norm of each row, weighted: `[1, S, width]` to the same.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Arc<[f32]>,
    eps: f32,
    with: With,
}

impl Norm {
    /// A norm over rows as long as `weight`.
    pub fn new(weight: impl Into<Arc<[f32]>>, eps: f32, with: With) -> Self {
        Self { weight: weight.into(), eps, with }
    }
}

/// `silu(gate) · up`: `[1, S, 2 · width]` to `[1, S, width]`.
#[derive(Clone, Debug)]
pub struct SwiGlu {
    width: usize,
    with: With,
}

impl SwiGlu {
    /// Of rows of `width` gates and `width` ups.
    pub fn new(width: usize, with: With) -> Self {
        Self { width, with }
    }
}

/// Causal attention over the chunk given and all chunks before it. Inputs: queries, keys and values
/// `[1, S, (heads + 2 · kv_heads) · head_dim]`, cosines and sines `[1, S, head_dim / 2]`. Output:
/// `[1, S, heads · head_dim]`.
#[derive(Clone, Debug)]
pub struct Attend {
    attention: Arc<Attention>,
    precision: Precision,
    with: With,
}

impl Attend {
    /// The attention of one layer, its keys and values kept in `precision`.
    pub fn new(attention: Attention, precision: Precision, with: With) -> Self {
        Self { attention: attention.into(), precision, with }
    }
}

/// Two operators are one if they share what they were made of.
macro_rules! same_if_shared {
    ($op:ident, $what:ident) => {
        impl PartialEq for $op {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.$what, &other.$what)
            }
        }
        impl Eq for $op {}
    };
}

same_if_shared!(Linear, matrices);
same_if_shared!(Norm, weight);
same_if_shared!(Attend, attention);

impl PartialEq for SwiGlu {
    fn eq(&self, other: &Self) -> bool {
        self.width == other.width
    }
}

impl Eq for SwiGlu {}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "QuantisedLinear".into()
    }
    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let width = self.matrices.iter().map(Matrix::rows).sum();
        let columns = self.matrices[0].columns();
        row_by_row(&inputs[0], columns, width, |x, out| {
            let mut activations = Activations::default();
            activations.quantise(x, columns, &self.with.threads);
            let With { variant, threads } = &self.with;
            match &self.adapter {
                None => multiply(&self.matrices, &activations, out, *variant, threads),
                Some(adapter) => {
                    adapter.multiply(&self.matrices, &activations, out, *variant, threads);
                }
            }
        })
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let columns = self.matrices.first().context("a product has a matrix")?.columns();
        ensure!(self.matrices.iter().all(|matrix| matrix.columns() == columns));
        ensure!(self.adapter.as_ref().is_none_or(|adapter| adapter.fits(&self.matrices)));
        wide(inputs, columns, self.matrices.iter().map(Matrix::rows).sum())
    }
    as_op!();
}

impl Op for Norm {
    fn name(&self) -> StaticName {
        "WeightedRmsNorm".into()
    }
    op_as_typed_op!();
}

impl EvalOp for Norm {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let width = self.weight.len();
        row_by_row(&inputs[0], width, width, |x, out| {
            rms_norm(x, &self.weight, self.eps, out, &self.with.threads);
        })
    }
}

impl TypedOp for Norm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        wide(inputs, self.weight.len(), self.weight.len())
    }
    as_op!();
}

impl Op for SwiGlu {
    fn name(&self) -> StaticName {
        "SwiGlu".into()
    }
    op_as_typed_op!();
}

impl EvalOp for SwiGlu {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        row_by_row(&inputs[0], 2 * self.width, self.width, |x, out| {
            swiglu(x, self.width, out, &self.with.threads);
        })
    }
}

impl TypedOp for SwiGlu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        wide(inputs, 2 * self.width, self.width)
    }
    as_op!();
}

impl Op for Attend {
    fn name(&self) -> StaticName {
        "PagedAttention".into()
    }
    op_as_typed_op!();
}

impl EvalOp for Attend {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(Seen { op: self.clone(), memory: Memory::new(self.precision) })))
    }
}

impl TypedOp for Attend {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let Attention { heads, kv_heads, head_dim, .. } = *self.attention;
        let &[_, cos, sin] = inputs else {
            bail!("attention takes queries, keys and values, cosines and sines");
        };
        let turns = [1.to_dim(), inputs[0].shape[1].clone(), (head_dim / 2).to_dim()];
        ensure!(cos.shape[..] == turns && sin.shape[..] == turns);
        wide(inputs, (heads + 2 * kv_heads) * head_dim, heads * head_dim)
    }
    as_op!();
}

/// What [`Attend`] has seen.
#[derive(Clone, Debug)]
struct Seen {
    op: Attend,
    memory: Memory,
}

impl OpState for Seen {
    fn eval(
        &mut self,
        _: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let Attention { heads, kv_heads, head_dim, .. } = *self.op.attention;
        let (cos, sin) = (inputs[1].to_plain_array_view()?, inputs[2].to_plain_array_view()?);
        let turns = Turns {
            cos: cos.as_slice().context("packed rows")?,
            sin: sin.as_slice().context("packed rows")?,
        };
        let Self { op, memory } = self;
        row_by_row(&inputs[0], (heads + 2 * kv_heads) * head_dim, heads * head_dim, |x, out| {
            op.attention.attend(memory, x, turns, out, &op.with.threads);
        })
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("a session is one stream")
    }
}

/// Calls `work` with the rows of `x` and those of the result.
fn row_by_row(
    x: &TValue,
    from: usize,
    to: usize,
    work: impl FnOnce(&[f32], &mut [f32]),
) -> TractResult<TVec<TValue>> {
    let view = x.to_plain_array_view::<f32>()?;
    let values = view.as_slice().context("packed rows")?;
    let rows = values.len() / from;
    let mut out = vec![0.0; rows * to];
    work(values, &mut out);
    Ok(tvec![tract_ndarray::ArrayD::from_shape_vec(&[1, rows, to][..], out)?.into_tvalue()])
}

/// The fact of a result, after the first input was found to be `[1, S, from]`.
fn wide(inputs: &[&TypedFact], from: usize, to: usize) -> TractResult<TVec<TypedFact>> {
    let shape = &inputs.first().context("an operator has an input")?.shape;
    ensure!(shape.rank() == 3 && shape[0] == 1.to_dim() && shape[2] == from.to_dim());
    Ok(tvec![f32::fact([1.to_dim(), shape[1].clone(), to.to_dim()])])
}
