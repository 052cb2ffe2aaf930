//! The engine: a bundle, ready to look and to speak.

use crate::{
    Accelerator, EngineError, Footprint, PairInput, PairKey, PairTokens, Session,
    accelerated::{Sight, Voice, part_of},
    backend::{Backend, Decoder, DecoderState, Probe, Refusal},
    onnx_runtime::OnnxRuntime,
    pairs::{PairCache, write_frames},
    rotary::Walker,
    tract_cpu::TractCpu,
    tract_cuda::TractCuda,
    vocabulary::Vocabulary,
};
use bundle::{ADAPTER, Bundle, DECODER, Manifest, TOKENIZER, VISION};
use kernels::Aligned;
use llguidance::{ParserFactory, earley::SlicedBiasComputer, toktrie::InferenceCapabilities};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Pairs handed to the vision tower at once: bounds its memory, and is enough to keep it busy.
const BATCH: usize = 8;

/// Memory for the states after known prefixes. A device has one prefix for each camera's own words;
/// one of 400 tokens is a few MB in a small policy and 90 MB in one of 2B, and the last is kept in
/// any case.
pub(crate) const PREFIX_BYTES: usize = 64 << 20;

/// Memory for visual tokens: everything of two inquiries in a small policy.
const PAIR_BYTES: usize = 64 << 20;

/// Pairs that are kept however large they are: what one look brings.
const PAIRS_AT_LEAST: usize = 16;

/// Before the accelerator that sees in the id of an engine that has one.
pub const ACCELERATED_VISION: &str = ", vision ";

/// Before the accelerator that speaks in the id of an engine that has one.
pub const ACCELERATED_DECODER: &str = ", decoder ";

/// How an engine is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads of a matrix product; 0 is 1.
    pub threads: usize,
    /// Bytes of memory that may be taken; a policy that would take more is not loaded. `None`:
    /// nobody counts.
    pub memory: Option<u64>,
    /// What is to see in the CPU's place, if it can; or why what is asked for is not even tried. `None`: nothing is
    /// asked for.
    pub accelerator: Option<Result<Accelerator, String>>,
    /// Whether an NVIDIA GPU is to speak in the CPU's place, if it can; or why it is not even tried. `None`: it is not asked
    /// for.
    pub cuda: Option<Result<(), String>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { threads: 1, memory: None, accelerator: None, cuda: None }
    }
}

/// What an engine has done since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frame pairs that went through the vision tower.
    pub pairs_encoded: u64,
    /// Frame pairs that were in the cache.
    pub pairs_cached: u64,
    /// Sessions whose prefix was computed.
    pub prefixes_computed: u64,
    /// Sessions whose prefix was in the cache.
    pub prefixes_cached: u64,
    /// Runs of the decoder.
    pub decoder_calls: u64,
    /// Positions that went through the decoder.
    pub positions: u64,
}

/// A bundle, ready to look and to speak. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// Loads every part of `bundle` into the first backend that takes it.
    ///
    /// # Errors
    /// [`EngineError`], which names the part, tensor or token at fault.
    pub fn load(bundle: &Bundle, options: EngineOptions) -> Result<Self, EngineError> {
        let accelerator =
            options.accelerator.as_ref().and_then(|asked_for| asked_for.as_ref().ok());
        let runtime = accelerator.map(|accelerator| OnnxRuntime::new(accelerator, options.threads));
        let sees = runtime.as_ref().map(|runtime| runtime as &dyn Backend);
        let speaks = matches!(options.cuda, Some(Ok(()))).then_some(&TractCuda as &dyn Backend);
        Self::load_beside(bundle, &options, sees, speaks)
    }

    /// The same, with what is to see and to speak in the CPU's place.
    fn load_beside(
        bundle: &Bundle,
        options: &EngineOptions,
        sees: Option<&dyn Backend>,
        speaks: Option<&dyn Backend>,
    ) -> Result<Self, EngineError> {
        // One that is not there takes nothing.
        let there =
            |backend: Option<&dyn Backend>| backend.is_some_and(|it| it.probe() == Probe::Ready);
        let footprint = Footprint::accelerated(bundle, sees.is_some(), there(speaks))?;
        if let Some(free) = options.memory.filter(|free| footprint.total() > *free) {
            return Err(EngineError::Memory { bundle: bundle.id(), footprint, free });
        }
        let manifest = bundle.manifest.clone();
        let vocabulary = Vocabulary::parse(&manifest, &bundle.read(TOKENIZER)?)?;
        let backends: [&dyn Backend; 1] = [&TractCpu::new(options.threads)];
        let mut report = Vec::new();
        let part = read(bundle, VISION)?;
        let (_, vision) = choose(&backends, VISION, &mut report, |b| b.vision(&manifest, &part))?;
        let mut sight = Sight::of(vision);
        if let Some(Err(why)) = &options.accelerator {
            sight.quarantine(why.clone(), &mut report);
        }
        if let Some(accelerator) = sees {
            let onnx = match part_of(&manifest) {
                VISION => part.clone(),
                own => read(bundle, own)?,
            };
            sight = sight.before(accelerator, &manifest, &onnx, &mut report);
        }
        let part = read(bundle, DECODER)?;
        let adapter = bundle.read_optional(ADAPTER)?;
        let (id, decoder) = choose(&backends, DECODER, &mut report, |b| {
            b.decoder(&manifest, &part, adapter.as_deref())
        })?;
        let mut voice = Voice::of(decoder);
        if let Some(Err(why)) = &options.cuda {
            voice.quarantine(why.clone(), &mut report);
        }
        if let Some(backend) = speaks {
            voice = voice.before(backend, &manifest, (&part, adapter.as_deref()), &mut report);
        }
        drop((part, adapter));
        let capabilities = InferenceCapabilities { ff_tokens: true, ..Default::default() };
        let mut grammars = ParserFactory::new(
            &vocabulary.token_env(),
            capabilities,
            &SlicedBiasComputer::general_slices(),
        )
        .map_err(|e| EngineError::Grammar { reason: format!("{e:#}") })?;
        grammars.quiet();
        let report = report.join("\n");
        tracing::info!(bundle = bundle.id(), engine = id, report, "engine loaded");
        let pairs = PairCache::new(pairs_kept(&manifest));
        let core = Core {
            id,
            report,
            manifest,
            vocabulary,
            grammars,
            sight,
            voice,
            footprint,
            pairs: Mutex::new(pairs),
            prefixes: Mutex::new(Vec::new()),
            counters: Counters::default(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// What the tokens depend on beside evidence and bundle: the decoder's backend and its version, and the accelerators
    /// that speak and see, as long as they do.
    pub fn id(&self) -> String {
        let mut id = self.core.id.clone();
        let Core { voice, sight, .. } = &*self.core;
        for (word, accelerator) in
            [(ACCELERATED_DECODER, voice.accelerator()), (ACCELERATED_VISION, sight.accelerator())]
        {
            if let Some(accelerator) = accelerator {
                id = id + word + accelerator;
            }
        }
        id
    }

    /// Why accelerators that were asked for do not serve though they are there, a reason each: its canary was
    /// something else than the CPU's, it failed later, or it is not to be tried.
    pub fn quarantined(&self) -> impl Iterator<Item = &str> {
        let Core { voice, sight, .. } = &*self.core;
        [&voice.quarantine, &sight.quarantine]
            .into_iter()
            .filter_map(|of| of.get())
            .map(String::as_str)
    }

    /// Which backend serves each part and why, a line each.
    pub fn backend_report(&self) -> &str {
        &self.core.report
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.core.manifest
    }

    /// What it takes of memory.
    pub fn footprint(&self) -> Footprint {
        self.core.footprint
    }

    /// What was done since loading.
    pub fn stats(&self) -> Stats {
        self.core.counters.read()
    }

    /// The visual tokens of frame pairs, in the order given. A pair that was looked at lately comes
    /// from the cache; its pixels are then not read. All of them were seen by the same backend, that of
    /// [`Engine::id`] when it returns.
    ///
    /// # Errors
    /// If the vision tower fails.
    pub fn encode(&self, pairs: &[PairInput<'_>]) -> Result<Vec<Arc<PairTokens>>, EngineError> {
        let core = &*self.core;
        let mut cache = lock(&core.pairs);
        loop {
            let accelerated = core.sight.accelerator().is_some();
            let seen = core.encode(pairs, &mut cache);
            if !accelerated || core.sight.accelerator().is_some() {
                return seen;
            }
            // It failed in the midst: what it saw before is not the CPU's.
            cache.clear();
        }
    }

    /// A session that has been fed `prefix` (the system prompt; may be empty). The state after a
    /// prefix is computed once.
    ///
    /// # Errors
    /// If the prefix does not fit into the context, or the decoder fails.
    pub fn start(&self, prefix: &str) -> Result<Session, EngineError> {
        let core = &self.core;
        if prefix.is_empty() {
            return Session::empty(core.clone());
        }
        let mut prefixes = lock(&core.prefixes);
        // The states of an accelerator that has failed since are of no use.
        let accelerated = core.voice.accelerator().is_some();
        prefixes.retain(|known| known.accelerated == accelerated);
        if let Some(at) = prefixes.iter().position(|known| known.text == prefix) {
            let known = prefixes.remove(at);
            let session = Session::after(core.clone(), &known);
            prefixes.push(known);
            core.counters.prefixes_cached.fetch_add(1, Ordering::Relaxed);
            return Ok(session);
        }
        let mut session = Session::empty(core.clone())?;
        session.feed(&[crate::Piece::Text(prefix)])?;
        core.counters.prefixes_computed.fetch_add(1, Ordering::Relaxed);
        prefixes.push(session.as_prefix(prefix, accelerated));
        let tokens =
            |prefixes: &[Prefix]| prefixes.iter().map(|known| known.ids.len()).sum::<usize>();
        while prefixes.len() > 1 && tokens(&prefixes) * token_bytes(&core.manifest) > PREFIX_BYTES {
            prefixes.remove(0);
        }
        Ok(session)
    }

    pub(crate) fn grammars(&self) -> &ParserFactory {
        &self.core.grammars
    }
}

/// A part, where its weights can be used as they lie.
fn read(bundle: &Bundle, part: &str) -> Result<Arc<Aligned>, EngineError> {
    let mut bytes = Aligned::zeroed(bundle.length(part)?);
    bundle.read_into(part, bytes.as_mut_slice())?;
    Ok(Arc::new(bytes))
}

/// What the sessions of an engine share.
pub(crate) struct Core {
    id: String,
    report: String,
    pub manifest: Manifest,
    pub vocabulary: Vocabulary,
    grammars: ParserFactory,
    sight: Sight,
    voice: Voice,
    footprint: Footprint,
    pairs: Mutex<PairCache>,
    /// Least recently used first.
    prefixes: Mutex<Vec<Prefix>>,
    pub counters: Counters,
}

/// The state after a prefix.
pub(crate) struct Prefix {
    pub text: String,
    pub ids: Vec<u32>,
    pub walker: Walker,
    pub logits: Vec<f32>,
    pub state: Box<dyn DecoderState>,
    /// Whether an accelerator has computed it.
    pub accelerated: bool,
}

impl Core {
    pub fn decoder(&self) -> &dyn Decoder {
        &*self.voice.part
    }

    fn encode(
        &self,
        pairs: &[PairInput<'_>],
        cache: &mut PairCache,
    ) -> Result<Vec<Arc<PairTokens>>, EngineError> {
        let mut known: HashMap<PairKey, Arc<PairTokens>> = HashMap::new();
        let mut unknown: Vec<&PairInput<'_>> = Vec::new();
        for pair in pairs {
            if known.contains_key(&pair.key) || unknown.iter().any(|other| other.key == pair.key) {
                continue;
            }
            match cache.get(pair.key) {
                Some(tokens) => _ = known.insert(pair.key, tokens),
                None => unknown.push(pair),
            }
        }
        self.counters.pairs_cached.fetch_add(known.len() as u64, Ordering::Relaxed);
        self.counters.pairs_encoded.fetch_add(unknown.len() as u64, Ordering::Relaxed);
        for batch in unknown.chunks(BATCH) {
            for (pair, tokens) in batch.iter().zip(self.look(batch)?) {
                let tokens = Arc::new(tokens);
                cache.insert(pair.key, tokens.clone());
                known.insert(pair.key, tokens);
            }
        }
        Ok(pairs.iter().map(|pair| known[&pair.key].clone()).collect())
    }

    fn look(&self, batch: &[&PairInput<'_>]) -> Result<Vec<PairTokens>, EngineError> {
        let geometry = &self.manifest.geometry;
        let mut frames = Vec::new();
        for pair in batch {
            write_frames(pair, geometry, &mut frames);
        }
        let outputs = self.sight.part.encode(frames, batch.len())?;
        let size = geometry.tokens_per_pair * self.manifest.decoder.hidden;
        let of_pair = |output: &Vec<f32>, i: usize| output[i * size..][..size].to_vec();
        Ok((0..batch.len())
            .map(|i| PairTokens {
                tokens: of_pair(&outputs[0], i),
                deepstack: outputs[1..].iter().map(|output| of_pair(output, i)).collect(),
            })
            .collect())
    }
}

/// What the visual tokens and DeepStack features of a pair take.
fn pair_bytes(manifest: &Manifest) -> usize {
    let geometry = &manifest.geometry;
    (1 + geometry.deepstack) * geometry.tokens_per_pair * manifest.decoder.hidden * size_of::<f32>()
}

/// How many pairs are kept.
fn pairs_kept(manifest: &Manifest) -> usize {
    (PAIR_BYTES / pair_bytes(manifest)).max(PAIRS_AT_LEAST)
}

/// What the pairs that are kept take.
pub(crate) fn pair_cache_bytes(manifest: &Manifest) -> usize {
    pairs_kept(manifest) * pair_bytes(manifest)
}

/// What the keys and values of a token take.
fn token_bytes(manifest: &Manifest) -> usize {
    let bundle::Decoder { layers, kv_heads, head_dim, .. } = manifest.decoder;
    2 * layers * kv_heads * head_dim * size_of::<f32>()
}

/// [`Stats`] while they grow.
#[derive(Default)]
pub(crate) struct Counters {
    pairs_encoded: AtomicU64,
    pairs_cached: AtomicU64,
    prefixes_computed: AtomicU64,
    prefixes_cached: AtomicU64,
    decoder_calls: AtomicU64,
    positions: AtomicU64,
}

impl Counters {
    pub fn decoder_ran(&self, positions: usize) {
        self.decoder_calls.fetch_add(1, Ordering::Relaxed);
        self.positions.fetch_add(positions as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            pairs_encoded: read(&self.pairs_encoded),
            pairs_cached: read(&self.pairs_cached),
            prefixes_computed: read(&self.prefixes_computed),
            prefixes_cached: read(&self.prefixes_cached),
            decoder_calls: read(&self.decoder_calls),
            positions: read(&self.positions),
        }
    }
}

/// Gives a part to the first backend that is ready and takes it; every reason goes to `report`.
fn choose<T>(
    backends: &[&dyn Backend],
    part: &str,
    report: &mut Vec<String>,
    prepare: impl Fn(&dyn Backend) -> Result<T, Refusal>,
) -> Result<(String, T), EngineError> {
    for backend in backends {
        let id = backend.id();
        let probe = backend.probe();
        if probe != Probe::Ready {
            report.push(format!("{part}: not on {id}, {probe}"));
            continue;
        }
        match prepare(*backend) {
            Ok(ready) => {
                report.push(format!("{part}: on {id}"));
                return Ok((id, ready));
            }
            Err(Refusal::Decline(why)) => report.push(format!("{part}: not on {id}, {why}")),
            Err(Refusal::Unsound(error)) => return Err(error),
        }
    }
    Err(EngineError::NoBackend { report: report.join("\n") })
}

/// A cache is sound after a panic elsewhere: every change to it is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Piece,
        backend::{Chunk, Vision},
        tract_cuda::tests::Standard,
    };

    struct Fake(Probe);

    impl Backend for Fake {
        fn id(&self) -> String {
            "fake 1".into()
        }
        fn probe(&self) -> Probe {
            self.0.clone()
        }
        fn vision(&self, _: &Manifest, _: &Arc<Aligned>) -> Result<Box<dyn Vision>, Refusal> {
            Err(Refusal::Decline("too large".into()))
        }
        fn decoder(
            &self,
            _: &Manifest,
            _: &Arc<Aligned>,
            _: Option<&[u8]>,
        ) -> Result<Box<dyn Decoder>, Refusal> {
            Err(Refusal::Unsound(EngineError::TensorMissing { part: DECODER, tensor: "x".into() }))
        }
    }

    /// The CPU by another name, and a little off; it fails after so many calls.
    struct Flaky(TractCpu, Arc<AtomicU64>);

    struct FlakyTower(Box<dyn Vision>, Arc<AtomicU64>);

    struct FlakyDecoder(Box<dyn Decoder>, Arc<AtomicU64>);

    struct FlakyState(Box<dyn DecoderState>, Arc<AtomicU64>);

    impl Backend for Flaky {
        fn id(&self) -> String {
            "flaky 1".into()
        }
        fn probe(&self) -> Probe {
            Probe::Ready
        }
        fn vision(
            &self,
            manifest: &Manifest,
            onnx: &Arc<Aligned>,
        ) -> Result<Box<dyn Vision>, Refusal> {
            Ok(Box::new(FlakyTower(self.0.vision(manifest, onnx)?, self.1.clone())))
        }
        fn decoder(
            &self,
            manifest: &Manifest,
            weights: &Arc<Aligned>,
            adapter: Option<&[u8]>,
        ) -> Result<Box<dyn Decoder>, Refusal> {
            let decoder = Standard.decoder(manifest, weights, adapter)?;
            Ok(Box::new(FlakyDecoder(decoder, self.1.clone())))
        }
    }

    impl Decoder for FlakyDecoder {
        fn start(&self) -> Result<Box<dyn DecoderState>, EngineError> {
            Ok(Box::new(FlakyState(self.0.start()?, self.1.clone())))
        }
        fn embed(&self, token: u32, out: &mut [f32]) {
            self.0.embed(token, out);
        }
    }

    impl DecoderState for FlakyState {
        fn step(&mut self, chunk: Chunk) -> Result<Vec<f32>, EngineError> {
            let left = self.1.load(Ordering::Relaxed);
            assert!(left > 0, "the driver is gone");
            self.1.store(left - 1, Ordering::Relaxed);
            let mut said = self.0.step(chunk)?;
            said.iter_mut().for_each(|number| *number *= 1.0001);
            Ok(said)
        }
        fn fork(&self) -> Box<dyn DecoderState> {
            Box::new(Self(self.0.fork(), self.1.clone()))
        }
    }

    impl Vision for FlakyTower {
        fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
            let left = self.1.load(Ordering::Relaxed);
            self.1.store(left.saturating_sub(1), Ordering::Relaxed);
            if left == 0 {
                return Err(EngineError::NotFinite { part: "the vision tower" });
            }
            let mut seen = self.0.encode(frames, pairs)?;
            seen.iter_mut().flatten().for_each(|number| *number *= 1.0001);
            Ok(seen)
        }
    }

    #[test]
    fn pairs_that_were_seen_before_an_accelerator_failed_are_looked_at_again() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture");
        let bundle = Bundle::open(fixture).unwrap();
        let looks = Arc::new(AtomicU64::new(u64::MAX));
        let flaky = Flaky(TractCpu::new(1), looks.clone());
        let options = EngineOptions::default();
        let engine = Engine::load_beside(&bundle, &options, Some(&flaky), None).unwrap();
        let alone = Engine::load(&bundle, options).unwrap();
        let frames: Vec<_> =
            (0..3).map(|n| crate::golden::drawn_pair(&bundle.manifest, n)).collect();
        let pairs: Vec<_> = (0..2 * BATCH)
            .map(|n| {
                let [first, second] = &frames[n % 3];
                PairInput { key: PairKey(n as u64, n as u64), frames: [first, second] }
            })
            .collect();
        let (early, right) = (&pairs[..2], alone.encode(&pairs).unwrap());
        assert_ne!(engine.encode(early).unwrap(), right[..2]);
        assert!(engine.id().ends_with(", vision flaky 1"), "{}", engine.id());
        // The early pairs are known to it; it sees the first batch of the others and fails in the second.
        looks.store(1, Ordering::Relaxed);
        assert_eq!(engine.encode(&pairs).unwrap(), right);
        assert_eq!(engine.id(), alone.id());
        assert_eq!(engine.encode(early).unwrap(), right[..2]);
        assert!(engine.quarantined().next().unwrap().contains("flaky 1"));
    }

    #[test]
    fn of_two_accelerators_that_fail_both_are_told() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture");
        let bundle = Bundle::open(fixture).unwrap();
        let flaky = || Flaky(TractCpu::new(1), Arc::new(AtomicU64::new(u64::MAX)));
        let (sees, speaks) = (flaky(), flaky());
        let options = EngineOptions::default();
        let engine = Engine::load_beside(&bundle, &options, Some(&sees), Some(&speaks)).unwrap();
        assert_eq!(engine.quarantined().next(), None);
        sees.1.store(0, Ordering::Relaxed);
        speaks.1.store(0, Ordering::Relaxed);
        let [first, second] = &crate::golden::drawn_pair(&bundle.manifest, 0);
        engine.encode(&[PairInput { key: PairKey(0, 0), frames: [first, second] }]).unwrap();
        engine.start("you watch a camera").map(drop).unwrap_err();
        let told: Vec<_> = engine.quarantined().collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("the driver is gone") && told[1].contains("not finite"),
            "{told:?}"
        );
    }

    #[test]
    fn a_session_of_an_accelerator_that_panics_is_lost_and_the_next_is_the_cpus_own() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture");
        let bundle = Bundle::open(fixture).unwrap();
        let steps = Arc::new(AtomicU64::new(u64::MAX));
        let flaky = Flaky(TractCpu::new(1), steps.clone());
        let options = EngineOptions::default();
        let engine = Engine::load_beside(&bundle, &options, None, Some(&flaky)).unwrap();
        assert!(engine.id().ends_with(", decoder flaky 1"), "{}", engine.backend_report());
        let alone = Engine::load(&bundle, options).unwrap();
        let answers = |engine: &Engine| -> Result<_, EngineError> {
            let mut session = engine.start("you watch a camera")?;
            let before = session.yes_no("verdict:\n")?;
            session.feed(&[Piece::Text("what happens?")])?;
            Ok((before, session.yes_no("verdict:\n")?, session.logits()?.to_vec()))
        };
        let (found, right) = (answers(&engine).unwrap(), answers(&alone).unwrap());
        assert_ne!(found, right);
        assert!(crate::cosine(&found.2, &right.2) > 0.999);
        // The prefix is known to it; it answers the first question and fails at the second.
        steps.store(2, Ordering::Relaxed);
        let error = answers(&engine).unwrap_err().to_string();
        assert!(error.contains("it panicked: the driver is gone"), "{error}");
        assert_eq!(engine.id(), alone.id());
        assert!(engine.quarantined().next().unwrap().contains("the driver is gone"));
        assert_eq!(answers(&engine).unwrap(), right);
        // Nor is it asked again when it could go on.
        steps.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(answers(&engine).unwrap(), right);
    }

    #[test]
    fn the_report_says_why_each_backend_before_the_chosen_one_was_passed_over() {
        let absent = Fake(Probe::Absent("no device".into()));
        let broken = Fake(Probe::Broken("wrong driver".into()));
        let ready = Fake(Probe::Ready);
        let mut report = Vec::new();
        let taken = choose(&[&absent, &broken, &ready], "vision", &mut report, |b| {
            if b.probe() == Probe::Ready { Ok(7) } else { Err(Refusal::Decline("never".into())) }
        });
        assert!(matches!(taken, Ok((_, 7))));
        assert_eq!(
            report,
            [
                "vision: not on fake 1, absent: no device",
                "vision: not on fake 1, broken: wrong driver",
                "vision: on fake 1"
            ]
        );
    }

    #[test]
    fn an_unsound_part_is_not_offered_to_the_next_backend() {
        let ready = Fake(Probe::Ready);
        let refused = choose(&[&ready, &ready], "decoder", &mut Vec::new(), |_| {
            Err::<(), _>(Refusal::Unsound(EngineError::NothingFed))
        });
        assert!(matches!(refused, Err(EngineError::NothingFed)));
    }
}
