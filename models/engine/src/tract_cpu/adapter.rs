//! A LoRA adapter: for each weight that it changes two narrow matrices, whose product is added to that of
//! the weight.

use super::weights::Weights;
use crate::{
    EngineError,
    packing::{LORA_ALPHA, USE_RSLORA, projections},
};
use bundle::ADAPTER;
use kernels::Factors;
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashMap};

/// The `adapter` part, found to fit the decoder.
pub(super) struct Adapter<'a> {
    factors: Weights<'a>,
    /// By the name of the weight without `.weight`.
    changes: BTreeMap<String, Shape>,
}

/// Of the factors of one weight.
struct Shape {
    rows: usize,
    columns: usize,
    rank: usize,
    scale: f32,
}

/// What is added to the products of one weight: `scale · B (A x)`.
pub(super) struct Change {
    /// `[rank, columns]`.
    pub a: Vec<f32>,
    /// `[rows, rank]`.
    pub b: Vec<f32>,
    pub rank: usize,
    pub scale: f32,
}

impl Change {
    /// As the kernels take them.
    pub fn factors(&self) -> Factors<'_> {
        let Self { a, b, rank, scale } = self;
        Factors { a, b, rank: *rank, scale: *scale }
    }
}

impl<'a> Adapter<'a> {
    /// Checks every name and shape against the decoder, before any number is read.
    ///
    /// # Errors
    /// [`EngineError::Weights`], [`EngineError::Adapter`].
    pub fn parse(bytes: &'a [u8], decoder: &bundle::Decoder) -> Result<Self, EngineError> {
        let factors = Weights::parse(ADAPTER, bytes)?;
        let scaling = Scaling::read(bytes)?;
        let shapes: BTreeMap<String, Vec<usize>> = factors.shapes().into_iter().collect();
        let projections = projections(decoder);
        let mut changes = BTreeMap::new();
        for name in shapes.keys() {
            let of =
                [".lora_A.weight", ".lora_B.weight"].iter().find_map(|end| name.strip_suffix(end));
            let of =
                of.ok_or_else(|| unfit(format!("its tensor '{name}' is no factor of LoRA")))?;
            let &[rows, columns] = projections
                .get(&format!("{of}.weight"))
                .ok_or_else(|| unfit(format!("it changes '{of}', which is no projection of it")))?;
            let factor = |which: &str| {
                let name = format!("{of}.lora_{which}.weight");
                let shape = shapes.get(&name).map(Vec::as_slice);
                shape.ok_or_else(|| unfit(format!("it lacks the tensor '{name}'")))
            };
            let (a, b) = (factor("A")?, factor("B")?);
            let rank = a.first().copied().unwrap_or(0);
            if a != [rank, columns] || b != [rows, rank] {
                return Err(unfit(format!(
                    "its factors of '{of}' have shapes {a:?} and {b:?}, and [rank, {columns}] and [{rows}, \
                     rank] go with that weight"
                )));
            }
            // More of them than this add nothing: it would be no narrow matrix any more.
            let most = rows.min(columns);
            if rank == 0 || rank > most {
                return Err(unfit(format!(
                    "its factors of '{of}' have rank {rank}, and 1 to {most} is possible"
                )));
            }
            changes.insert(of.to_owned(), Shape { rows, columns, rank, scale: scaling.of(rank) });
        }
        if changes.is_empty() {
            return Err(unfit("it changes nothing".into()));
        }
        Ok(Self { factors, changes })
    }

    /// What it adds to the products of the weight `name.weight`, if anything.
    ///
    /// # Errors
    /// If a factor holds something else than finite numbers.
    pub fn of(&self, name: &str) -> Result<Option<Change>, EngineError> {
        let Some(&Shape { rows, columns, rank, scale }) = self.changes.get(name) else {
            return Ok(None);
        };
        let factor = |which: &str, shape: [usize; 2]| {
            let name = format!("{name}.lora_{which}.weight");
            let numbers = self.factors.f32(&name, &shape)?;
            if numbers.iter().all(|x| x.is_finite()) {
                return Ok(numbers);
            }
            Err(unfit(format!("its tensor '{name}' holds a number that is not finite")))
        };
        let (a, b) = (factor("A", [rank, columns])?, factor("B", [rows, rank])?);
        Ok(Some(Change { a, b, rank, scale }))
    }
}

/// How factors are scaled.
struct Scaling {
    alpha: f64,
    /// By the root of the rank (Kalajdzievski, rsLoRA, 2023).
    stabilised: bool,
}

impl Scaling {
    fn read(bytes: &[u8]) -> Result<Self, EngineError> {
        let malformed = |e: safetensors::SafeTensorError| EngineError::Weights {
            part: ADAPTER,
            reason: e.to_string(),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let none = HashMap::new();
        let told = header.metadata().as_ref().unwrap_or(&none);
        let alpha = told.get(LORA_ALPHA).and_then(|alpha| alpha.parse().ok());
        let alpha = alpha.filter(|alpha: &f64| (*alpha as f32).is_normal() && *alpha > 0.0);
        let alpha = alpha.ok_or_else(|| {
            unfit(format!(
                "its metadata tell no '{LORA_ALPHA}' above 0, without which it has no scale"
            ))
        })?;
        let stabilised = match told.get(USE_RSLORA).map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(unfit(format!(
                    "its metadata tell '{other}' as '{USE_RSLORA}', which is true or false"
                )));
            }
        };
        Ok(Self { alpha, stabilised })
    }

    fn of(&self, rank: usize) -> f32 {
        let rank = rank as f64;
        (self.alpha / if self.stabilised { rank.sqrt() } else { rank }) as f32
    }
}

fn unfit(reason: String) -> EngineError {
    EngineError::Adapter { reason }
}
