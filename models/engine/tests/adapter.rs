//! A decoder with an adapter beside it computes what it computes with the adapter merged into its weights.

mod common;

use bundle::{Bundle, DECODER, Manifest, PartFile};
use common::{Expected, assert_alike, fixture_dir};
use engine::{
    Engine, EngineError, EngineOptions, Grammar, Session, Text, TextDecoder, cosine,
    packed_tensors, projections,
};
use half::bf16;
use kernels::{Aligned, Content, Format, Matrix, Writer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

/// Tensors by name, with their shapes.
type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers between -1 and 1, others for each `seed`.
fn drawn(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) as f64).sin() as f32;
    // So that a file of 16 bits holds them as they are.
    (0..count).map(|i| bf16::from_f32(number(i)).to_f32()).collect()
}

/// An adapter in the making: tensors, and what is told beside them.
struct Adapter {
    tensors: Weights,
    told: HashMap<String, String>,
    dtype: Dtype,
}

impl Adapter {
    /// Of the weights that `of` names, each of a rank of its own.
    fn new(decoder: &bundle::Decoder, of: impl Fn(&str) -> bool) -> Self {
        let mut tensors = BTreeMap::new();
        for (number, (name, [rows, columns])) in projections(decoder).into_iter().enumerate() {
            let name = name.strip_suffix(".weight").unwrap();
            if !of(name) {
                continue;
            }
            let rank = [1, 2, 5, 8, 16][number % 5];
            // As large beside the weights as changes many of them.
            let size = 1.0 / (columns as f32 * rank as f32).sqrt();
            let a = drawn(rank * columns, number);
            let b = drawn(rows * rank, number + 1000).iter().map(|b| b * size).collect();
            tensors.insert(format!("{name}.lora_A.weight"), (vec![rank, columns], a));
            tensors.insert(format!("{name}.lora_B.weight"), (vec![rows, rank], b));
        }
        let told = HashMap::from([("lora_alpha".to_owned(), "4".to_owned())]);
        Self { tensors, told, dtype: Dtype::F32 }
    }

    fn all(decoder: &bundle::Decoder) -> Self {
        Self::new(decoder, |_| true)
    }

    fn bytes(&self) -> Vec<u8> {
        let number = |x: &f32| match self.dtype {
            Dtype::BF16 => bf16::from_f32(*x).to_le_bytes().to_vec(),
            _ => x.to_le_bytes().to_vec(),
        };
        let data: Vec<Vec<u8>> = self
            .tensors
            .values()
            .map(|(_, numbers)| numbers.iter().flat_map(number).collect())
            .collect();
        let views = self.tensors.iter().zip(&data).map(|((name, (shape, _)), data)| {
            (name, TensorView::new(self.dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, Some(self.told.clone())).unwrap()
    }

    /// Adds `scale · B A` to the weights, in 64 bits.
    fn merge(&self, weights: &mut Weights) {
        let alpha: f64 = self.told["lora_alpha"].parse().unwrap();
        let stabilised = self.told.get("use_rslora").is_some_and(|told| told == "true");
        for (name, (shape, a)) in &self.tensors {
            let Some(name) = name.strip_suffix(".lora_A.weight") else { continue };
            let (rank, columns) = (shape[0], shape[1]);
            let b = &self.tensors[&format!("{name}.lora_B.weight")].1;
            let scale = alpha / if stabilised { (rank as f64).sqrt() } else { rank as f64 };
            let weight = &mut weights.get_mut(&format!("{name}.weight")).unwrap().1;
            for (i, weight) in weight.iter_mut().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let product =
                    |k: usize| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]);
                *weight = (f64::from(*weight) + scale * (0..rank).map(product).sum::<f64>()) as f32;
            }
        }
    }
}

/// The numbers of a plain decoder.
fn weights(bundle: &Bundle) -> Weights {
    let bytes = bundle.read(DECODER).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |tensor: &TensorView<'_>| -> Vec<f32> {
        let (halves, words) = (tensor.data().as_chunks::<2>().0, tensor.data().as_chunks::<4>().0);
        match tensor.dtype() {
            Dtype::BF16 => halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F16 => halves.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            _ => words.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    };
    file.iter().map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), numbers(&t)))).collect()
}

/// A plain decoder of 32 bits.
fn plain(weights: &Weights) -> Vec<u8> {
    let data: Vec<Vec<u8>> = weights
        .values()
        .map(|(_, numbers)| numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = weights.iter().zip(&data).map(|((name, (shape, _)), data)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn aligned(bytes: &[u8]) -> Arc<Aligned> {
    let mut aligned = Aligned::zeroed(bytes.len());
    aligned.as_mut_slice().copy_from_slice(bytes);
    Arc::new(aligned)
}

fn nano() -> Bundle {
    Bundle::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../nano")).unwrap()
}

/// The decoder of a bundle packed, and the very numbers that it then has.
fn packed(bundle: &Bundle, format: Format) -> (Arc<Aligned>, Weights) {
    let mut weights = weights(bundle);
    let tensors = packed_tensors(&bundle.manifest.decoder, format);
    let mut writer = Writer::new(Vec::new(), tensors.clone(), &[]).unwrap();
    for (name, content) in tensors {
        let numbers = &mut weights.get_mut(&name).unwrap().1;
        match content {
            Content::Matrix { format, columns, .. } => {
                let matrix = Matrix::quantise(format, numbers, columns).unwrap();
                writer.matrix(&name, &matrix).unwrap();
                let rows = numbers.chunks_exact_mut(columns).enumerate();
                rows.for_each(|(row, numbers)| matrix.row(row, numbers));
            }
            Content::Numbers(_) => writer.numbers(&name, numbers).unwrap(),
        }
    }
    (aligned(&writer.finish()), weights)
}

fn load(
    manifest: &Manifest,
    weights: &Arc<Aligned>,
    adapter: Option<&[u8]>,
    threads: usize,
) -> Result<TextDecoder, EngineError> {
    let options = EngineOptions { threads, ..EngineOptions::default() };
    TextDecoder::load(manifest, weights, adapter, options)
}

/// Reads in chunks and gives the logits after each.
fn read(text: &mut Text<'_>, chunks: &[usize]) -> Vec<Vec<f32>> {
    let tokens: Vec<u32> = (0..200).map(|i| i * 37 % 1000).collect();
    let mut rest = tokens.as_slice();
    let mut next = |n: usize| {
        let (chunk, later) = rest.split_at(n);
        rest = later;
        text.read(chunk).unwrap()
    };
    chunks.iter().map(|n| next(*n)).collect()
}

/// Long and short, so that a token comes alone as well as among others.
const CHUNKS: [usize; 6] = [100, 1, 1, 3, 30, 1];

#[test]
fn beside_packed_weights_it_says_what_merged_weights_of_32_bits_say() {
    let bundle = nano();
    let manifest = &bundle.manifest;
    let said = |weights: &Weights| {
        let decoder = load(manifest, &aligned(&plain(weights)), None, 1).unwrap();
        read(&mut decoder.start().unwrap(), &CHUNKS)
    };
    let only = |part: &'static str| move |name: &str| name.ends_with(part);
    let mut stabilised = Adapter::all(&manifest.decoder);
    stabilised.told.insert("use_rslora".into(), "true".into());
    let mut halves = Adapter::all(&manifest.decoder);
    halves.dtype = Dtype::BF16;
    halves.tensors.values_mut().flat_map(|(_, x)| x).for_each(|x| *x = bf16::from_f32(*x).to_f32());
    // Keys change little of what is said.
    let mut keys = Adapter::new(&manifest.decoder, only("k_proj"));
    keys.told.insert("lora_alpha".into(), "32".into());
    let adapters = [
        Adapter::all(&manifest.decoder),
        stabilised,
        halves,
        keys,
        Adapter::new(&manifest.decoder, only("o_proj")),
        Adapter::new(&manifest.decoder, only("up_proj")),
        Adapter::new(&manifest.decoder, only("down_proj")),
    ];
    for format in [Format::Q8_0, Format::Q4_0] {
        let (weights, base) = packed(&bundle, format);
        let before = said(&base);
        for (number, adapter) in adapters.iter().enumerate() {
            let mut merged = base.clone();
            adapter.merge(&mut merged);
            let truth = said(&merged);
            let decoder = load(manifest, &weights, Some(&adapter.bytes()), 1).unwrap();
            let found = read(&mut decoder.start().unwrap(), &CHUNKS);
            let least = |of: &[Vec<f32>]| {
                of.iter().zip(&truth).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
            };
            let (changed, alike) = (least(&before), least(&found));
            assert!(changed < 0.998, "adapter {number} changes next to nothing: {changed}");
            assert!(alike > 0.999, "adapter {number} beside {format}: {alike}");
        }
    }
}

#[test]
fn threads_and_chunks_do_not_change_a_bit_of_what_it_says() {
    let bundle = nano();
    let adapter = Adapter::all(&bundle.manifest.decoder).bytes();
    let (weights, _) = packed(&bundle, Format::Q4_0);
    let one = load(&bundle.manifest, &weights, Some(&adapter), 1).unwrap();
    let three = load(&bundle.manifest, &weights, Some(&adapter), 3).unwrap();
    let whole = read(&mut one.start().unwrap(), &[120, 1]);
    assert_eq!(whole, read(&mut three.start().unwrap(), &[120, 1]));
    assert_eq!(whole[1], read(&mut three.start().unwrap(), &[60, 1, 59, 1])[3]);
    // A copy of a text has the adapter, too.
    let mut text = three.start().unwrap();
    read(&mut text, &[60]);
    let mut copy = text.clone();
    assert_eq!(copy.read(&[5, 6]).unwrap(), text.read(&[5, 6]).unwrap());
}

/// The fixture as a bundle of its own in `dir`, with another decoder, an adapter or both.
fn written(dir: &Path, decoder: Option<Vec<u8>>, adapter: Option<Vec<u8>>) -> Bundle {
    let fixture = Bundle::open(fixture_dir()).unwrap();
    let mut parts: BTreeMap<&str, Vec<u8>> = ["decoder", "vision", "tokenizer", "chat_template"]
        .map(|part| (part, fixture.read(part).unwrap()))
        .into();
    parts.extend(decoder.map(|bytes| ("decoder", bytes)));
    parts.extend(adapter.map(|bytes| ("adapter", bytes)));
    let files: Vec<_> =
        parts.iter().map(|(part, bytes)| PartFile { part, file: part, bytes }).collect();
    bundle::write(dir, fixture.manifest, &files).unwrap()
}

fn engine(bundle: &Bundle) -> Result<Engine, EngineError> {
    Engine::load(bundle, EngineOptions::default())
}

#[test]
fn an_engine_with_an_adapter_sees_reads_and_speaks_as_one_with_merged_weights() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Bundle::open(fixture_dir()).unwrap();
    let adapter = Adapter::all(&fixture.manifest.decoder);
    let mut merged = weights(&fixture);
    adapter.merge(&mut merged);
    let bundles = [
        written(&dir.path().join("merged"), Some(plain(&merged)), None),
        written(&dir.path().join("beside"), None, Some(adapter.bytes())),
    ];
    let expected = Expected::read();
    let said = bundles.map(|bundle| {
        let engine = engine(&bundle).unwrap();
        let pairs = expected.encode(&engine);
        let mut logits = Vec::new();
        let pieces = expected.pieces(&pairs);
        let engine::Piece::Text(prefix) = pieces[0] else { panic!("the first piece is text") };
        let mut session: Session = engine.start(prefix).unwrap();
        for piece in &pieces[1..] {
            session.feed(&[*piece]).unwrap();
            logits.push(session.logits().unwrap().to_vec());
        }
        let verdict = session.yes_no("").unwrap();
        let grammar = Grammar::new(&engine, r#"start: "{\"frames\":" /[a-z ]{20}/ "}""#).unwrap();
        let mut aside = session.clone();
        let spoken = aside.generate(&grammar, 60).unwrap();
        logits.push(aside.logits().unwrap().to_vec());
        (logits, verdict, spoken.tokens)
    });
    let [(truth, verdict, tokens), (found, found_verdict, found_tokens)] = said;
    for (step, (found, truth)) in found.iter().zip(&truth).enumerate() {
        assert_alike(&format!("step {step}"), found, truth);
    }
    assert!((verdict - found_verdict).abs() < 1e-4, "{verdict} {found_verdict}");
    assert_eq!(tokens, found_tokens);
    // And not as one without it.
    let changed = expected.step_logits.last().unwrap();
    assert!(cosine(&truth[truth.len() - 2], changed) < 0.99);
}

/// I6: no byte of an unverified bundle is ever parsed by the engine.
#[test]
fn an_adapter_changed_after_it_was_opened_is_refused_before_it_is_parsed() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = Bundle::open(fixture_dir()).unwrap().manifest.decoder;
    let bundle = written(dir.path(), None, Some(Adapter::all(&decoder).bytes()));
    assert!(engine(&bundle).is_ok());
    let path = dir.path().join("adapter");
    let mut bytes = fs::read(&path).unwrap();
    // The very first byte: a parser that saw it would complain of the format, not of the hash.
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refusal = engine(&bundle).err().unwrap().to_string();
    assert!(refusal.contains("part 'adapter' has BLAKE3"), "{refusal}");
    fs::remove_file(&path).unwrap();
    let refusal = engine(&bundle).err().unwrap().to_string();
    assert!(refusal.contains("part 'adapter' cannot be read"), "{refusal}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_in_a_sentence_that_names_what_is_wrong() {
    const K: &str = "model.language_model.layers.1.self_attn.k_proj";
    let bundle = nano();
    let decoder = &bundle.manifest.decoder;
    let (a, b) = (format!("{K}.lora_A.weight"), format!("{K}.lora_B.weight"));
    let [rows, columns] = projections(decoder)[&format!("{K}.weight")];
    let good = || Adapter::new(decoder, |name| name == K);
    let (packed, _) = packed(&bundle, Format::Q4_0);
    let plain = aligned(&bundle.read(DECODER).unwrap());
    let refused = |bytes: &[u8], named: &str| {
        for weights in [&packed, &plain] {
            let sentence =
                load(&bundle.manifest, weights, Some(bytes), 1).err().expect(named).to_string();
            assert!(sentence.contains("'adapter'") && sentence.contains(named), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    };
    assert!(load(&bundle.manifest, &packed, Some(&good().bytes()), 1).is_ok());
    type Change<'a> = &'a dyn Fn(&mut Adapter);
    let factors = |rank: usize| {
        move |of: &mut Adapter| {
            let (a, b) = (format!("{K}.lora_A.weight"), format!("{K}.lora_B.weight"));
            of.tensors.insert(a, (vec![rank, columns], vec![0.5; rank * columns]));
            of.tensors.insert(b, (vec![rows, rank], vec![0.5; rows * rank]));
        }
    };
    let (none, absurd) = (factors(0), factors(rows.min(columns) + 1));
    let renamed = |to: &'static str| {
        move |of: &mut Adapter| {
            let tensors = std::mem::take(&mut of.tensors);
            of.tensors =
                tensors.into_iter().map(|(name, tensor)| (name.replace(K, to), tensor)).collect();
        }
    };
    let (elsewhere, embedding, norm) = (
        renamed("model.language_model.layers.99.self_attn.k_proj"),
        renamed("model.language_model.embed_tokens"),
        renamed("model.language_model.norm"),
    );
    let wide = format!("have shapes [3, {}]", columns + 32);
    let cases: [(Change<'_>, &str); 15] = [
        (&|of| of.tensors.clear(), "changes nothing"),
        (&elsewhere, "'model.language_model.layers.99.self_attn.k_proj', which is no projection"),
        (&embedding, "'model.language_model.embed_tokens', which is no projection"),
        (&norm, "'model.language_model.norm', which is no projection"),
        (&|of| _ = of.tensors.remove(&a), &format!("lacks the tensor '{a}'")),
        (&|of| _ = of.tensors.remove(&b), &format!("lacks the tensor '{b}'")),
        (
            &|of| _ = of.tensors.insert(format!("{K}.bias"), (vec![1], vec![1.0])),
            "no factor of LoRA",
        ),
        (
            &|of| {
                let wide = columns + 32;
                of.tensors.insert(a.clone(), (vec![3, wide], vec![0.5; 3 * wide]));
                of.tensors.insert(b.clone(), (vec![rows, 3], vec![0.5; 3 * rows]));
            },
            &wide,
        ),
        (&none, "have rank 0"),
        (&absurd, &format!("1 to {} is possible", rows.min(columns))),
        (
            &|of| of.tensors.get_mut(&b).unwrap().1[7] = f32::NAN,
            &format!("'{b}' holds a number that"),
        ),
        (
            &|of| of.tensors.get_mut(&a).unwrap().1[7] = f32::INFINITY,
            &format!("'{a}' holds a number that"),
        ),
        (&|of| of.told.clear(), "no 'lora_alpha' above 0"),
        (&|of| _ = of.told.insert("lora_alpha".into(), "NaN".into()), "no 'lora_alpha' above 0"),
        (&|of| _ = of.told.insert("use_rslora".into(), "maybe".into()), "'maybe' as 'use_rslora'"),
    ];
    for (change, named) in cases {
        let mut adapter = good();
        change(&mut adapter);
        refused(&adapter.bytes(), named);
    }
    let bytes = good().bytes();
    for bytes in [&b""[..], b"{}", &[0xff; 100], &bytes[..bytes.len() - 1], &bytes[..40]] {
        refused(bytes, "is not a safetensors file");
    }
    let mut words = good();
    words.dtype = Dtype::U32;
    refused(&words.bytes(), "holds U32 elements");
}
