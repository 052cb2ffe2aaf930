//! The vision tower: an ONNX graph behind the bundle's contract.

use super::failed;
use crate::{
    EngineError,
    backend::{Vision, sound},
};
use bundle::Manifest;
use std::{collections::HashMap, sync::Arc};
use tract_core::internal::*;
use tract_onnx::prelude::{Framework, InferenceModelExt};

/// A vision tower, ready to run.
pub(super) struct Tower {
    plan: Arc<TypedSimplePlan>,
    /// Channels, height, width.
    frame: [usize; 3],
    /// Names of the outputs, in order.
    outputs: Vec<String>,
    /// Tokens of a pair, hidden.
    output: [usize; 2],
}

impl Tower {
    pub fn load(
        manifest: &Manifest,
        onnx: &[u8],
        options: &RunOptions,
    ) -> Result<Self, EngineError> {
        let unusable = |e: TractError| EngineError::Vision { reason: format!("{e:#}") };
        let geometry = &manifest.geometry;
        let mut graph = tract_onnx::onnx()
            .model_for_read(&mut &*onnx)
            .and_then(|graph| graph.into_typed())
            .map_err(unusable)?;
        let frame = [geometry.channels, geometry.height, geometry.width];
        let pairs = check_input(&graph, frame).map_err(unusable)??;
        let outputs: Vec<String> = std::iter::once("tokens".to_owned())
            .chain((0..geometry.deepstack).map(|k| format!("deepstack_{k}")))
            .collect();
        let outlets = outputs
            .iter()
            .map(|name| {
                let missing = || EngineError::VisionName { what: format!("output '{name}'") };
                graph.find_outlet_label(name).ok_or_else(missing)
            })
            .collect::<Result<Vec<_>, _>>()?;
        graph.select_output_outlets(&outlets).map_err(unusable)?;
        // One pair at a time: for a known number of pairs tract has better convolutions, and what a
        // pair looks like cannot depend on its company.
        let plan = graph
            .set_symbols(&HashMap::from([(pairs, 1.to_dim())]))
            .and_then(TypedModel::into_optimized)
            .and_then(|graph| TypedSimplePlan::new_with_options(graph, options))
            .map_err(unusable)?;
        let output = [geometry.tokens_per_pair, manifest.decoder.hidden];
        let tower = Self { plan, frame, outputs, output };
        // Shapes inside the graph may be known only once it runs: a grey pair shows them.
        tower.look(&vec![0.0; 2 * frame.iter().product::<usize>()])?;
        Ok(tower)
    }
}

impl Vision for Tower {
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut all = vec![vec![]; self.outputs.len()];
        for pair in frames.chunks_exact(frames.len() / pairs.max(1)) {
            for (all, of_pair) in all.iter_mut().zip(self.look(pair)?) {
                all.extend(of_pair);
            }
        }
        Ok(all)
    }
}

impl Tower {
    /// The outputs for one pair, `[2, channels, height, width]`.
    fn look(&self, pair: &[f32]) -> Result<Vec<Vec<f32>>, EngineError> {
        let [channels, height, width] = self.frame;
        let pair = Tensor::from_shape(&[1, 2, channels, height, width], pair)
            .map_err(failed("prepared a pair"))?;
        let outputs =
            self.plan.run(tvec![pair.into_tvalue()]).map_err(failed("ran the vision tower"))?;
        let expected = [1, self.output[0], self.output[1]];
        let read = |(name, output): (&String, &TValue)| {
            let values =
                output.to_plain_array_view::<f32>().map_err(failed("read visual tokens"))?;
            let values: Vec<f32> = values.iter().copied().collect();
            sound(name, output.shape(), &expected, &values)?;
            Ok(values)
        };
        self.outputs.iter().zip(&outputs).map(read).collect()
    }
}

/// The one input must be `frames`, with a free batch axis, which is returned, and the manifest's
/// geometry.
fn check_input(
    graph: &TypedModel,
    [channels, height, width]: [usize; 3],
) -> TractResult<Result<Symbol, EngineError>> {
    let &[input] = graph.input_outlets()? else {
        return Ok(Err(EngineError::VisionName { what: "single input 'frames'".into() }));
    };
    if graph.node(input.node).name != "frames" {
        return Ok(Err(EngineError::VisionName { what: "input 'frames'".into() }));
    }
    let fact = graph.outlet_fact(input)?;
    let sides = [2, channels, height, width].map(|n| n.to_dim());
    let sound =
        fact.datum_type == f32::datum_type() && fact.rank() == 5 && fact.shape[1..] == sides;
    Ok(match fact.shape.first() {
        Some(TDim::Sym(pairs)) if sound => Ok(pairs.clone()),
        _ => Err(EngineError::VisionShape {
            what: "input 'frames'".into(),
            expected: format!("B,2,{channels},{height},{width},F32 (B free)"),
            found: format!("{fact:?}"),
        }),
    })
}
