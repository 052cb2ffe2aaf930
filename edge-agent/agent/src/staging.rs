//! A new policy, or a new system, on its way to this device: what a repository offers, and the steps from there to a
//! trial.

use crate::{
    accelerator, builtin,
    config::Config,
    installed::{self, Halts, Ledger, Record},
    line::Line,
    machine, one_line, parts,
    system::{self, System},
};
use anyhow::{Context, Result, bail, ensure};
use bundle::Bundle;
use engine::{Footprint, Golden};
use inquiry::Inquirer;
use release::{Admission, Channel, Index, Kind, Release};
use serde_json::{Value, json};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use updater::{
    Catalogue, Effect, FetchError, Input, Partial, Parts, Progress, Source, Stage, Trust, fetch,
};

/// The version of this program.
const AGENT: &str = env!("CARGO_PKG_VERSION");

/// A repository that was verified, and what it has for this device.
pub struct Offer {
    source: Arc<Source>,
    catalogue: Catalogue,
    /// Its channel.
    pub channel: Channel,
    /// What the channel names.
    pub release: Release,
}

impl Offer {
    /// Asks the repository of the configuration. What is believed afterwards is in `record`, and must be kept,
    /// whatever comes of it.
    ///
    /// # Errors
    /// If there is none, it cannot be reached, or it is not believed.
    pub fn ask(config: &Config, record: &mut Record) -> Result<Self> {
        if config.update.repository.is_empty() {
            bail!("there is no repository of policies: name one in [update] repository");
        }
        match halts(config, channel(config, record.plan.kind)?) {
            Ok(halts) => record.halts = halts,
            // What it said last goes on to count: a server that is away must not keep policies away, nor free one.
            Err(error) => tracing::debug!("which rollouts are halted is not known: {error:#}"),
        }
        Self::ask_at(&config.update.repository, config, record)
    }

    /// The same of the repository at this address, such as a folder of a stick.
    ///
    /// # Errors
    /// If it cannot be reached, or is not believed.
    pub fn ask_at(address: &str, config: &Config, record: &mut Record) -> Result<Self> {
        let (c, channel) = (&config.update, channel(config, record.plan.kind)?);
        let source = Arc::new(Source::new(address, &c.ca)?);
        if record.trust.is_none() && record.plan.kind == Kind::System {
            // It is the same repository: what is believed of it for policies is a beginning.
            record.trust = Record::read(Kind::Policy, &config.device.data_dir).trust;
        }
        let had = record.trust.is_some();
        if !had {
            let root = installed::given_root(&c.root).with_context(|| {
                format!(
                    "cannot read [update] root '{}': give the root.json that the owner of the \
                     repository gave out",
                    c.root.display()
                )
            })?;
            record.trust = Some(Trust::new(root));
        }
        record.note_time(parts::now());
        let clock = record.clock(parts::now());
        let mut trust = record.trust.clone().unwrap_or_default();
        let opened = Catalogue::open(&source, &mut trust, clock);
        // A root that has brought nothing yet is read anew the next time: it may have been the wrong one.
        if opened.is_ok() || had {
            record.trust = Some(trust);
        } else {
            record.trust = None;
        }
        let catalogue = opened?;
        let target = catalogue.target(&source, &Channel::target(channel))?;
        let mut channel = Channel::parse(channel, &target)?;
        // Whoever can halt can keep a policy away and nothing else, so it needs no key.
        channel.halted |= record.halts.holds_up(&channel);
        let target = catalogue.target(&source, &channel.release)?;
        let release = Release::parse(&channel.release, &target)?;
        if release.bundle != channel.bundle {
            bail!(
                "the repository {address} has {} where its channel says {}: publish it anew",
                release.bundle,
                channel.bundle
            );
        }
        let (offered, wanted) = (release.kind, record.plan.kind);
        if offered != wanted {
            let section = if wanted.is_policy() { "update" } else { "os" };
            bail!(
                "channel '{}' of the repository {address} offers a {}, and [{section}] channel names one for a {}: \
                 nothing of it was taken",
                channel.channel,
                offered.word(),
                wanted.word()
            );
        }
        Ok(Self { source, catalogue, channel, release })
    }

    /// Whether it is another than what `runs`; a system is told by its version.
    pub fn is_new(&self, runs: &str) -> bool {
        let of_version = |id: &str| id.split('+').next().map(str::to_owned);
        match self.release.kind {
            Kind::Policy => self.release.bundle != runs,
            Kind::System => of_version(&self.release.bundle) != of_version(runs),
        }
    }

    fn index(&self, name: &str) -> Result<Index> {
        Ok(Index::parse(name, &self.catalogue.target(&self.source, name)?)?)
    }

    /// Files that are not there yet, as far as they are.
    fn begun(&self, config: &Config, parts: &Parts) -> Result<Vec<Partial>> {
        let others = match self.release.kind {
            Kind::Policy => files_of_policy(config),
            Kind::System => System::of(config).readable_slot().into_iter().collect(),
        };
        // The index of a frozen base is larger than a small adapter.
        let missing = self.release.files.iter().filter(|file| !parts.has(file));
        missing.map(|file| Ok(parts.begin(&self.index(&file.index())?, &others)?)).collect()
    }

    /// What is said of it, for programs.
    pub fn told(&self, record: &Record, built_in: &str) -> Value {
        let now = parts::now().unix_us / 1_000_000;
        let waits = record.plan.waits_until_unix_s().filter(|until| now < *until);
        let (admission, from) = match self.channel.admits(record.plan.seed, now) {
            Admission::Now => (if waits.is_some() { "waits" } else { "now" }, waits),
            Admission::From(unix_s) => ("later", Some(unix_s)),
            Admission::Never => ("never", None),
        };
        let taken = record.plan.runs().filter(|release| release.kind.is_policy());
        let runs = taken.map_or(built_in, |release| &release.bundle);
        json!({
            "repository": self.source.address(),
            "channel": self.channel.channel,
            "number": self.channel.number,
            "offered": self.release.bundle,
            "runs": runs,
            "is_new": self.is_new(runs),
            "bytes": self.release.bytes(),
            "halted": self.channel.halted,
            "floor": self.channel.floor,
            "admission": admission,
            "admitted_from_unix_s": from,
            "expires_unix_s": self.catalogue.expires_unix_s(),
        })
    }
}

/// What the fleet server of this device has halted; nothing if it reports to nobody.
fn halts(config: &Config, channel: &str) -> Result<Halts> {
    let Some(line) = Line::of(config)? else { return Ok(Halts::default()) };
    Ok(Halts { numbers: line.halted(channel)?, channel: channel.to_owned() })
}

/// The channel that is followed for policies, or for systems.
fn channel(config: &Config, kind: Kind) -> Result<&str> {
    match kind {
        Kind::Policy => Ok(&config.update.channel),
        Kind::System if config.os.channel.is_empty() => {
            bail!("there is no channel that systems come from: name one in [os] channel")
        }
        Kind::System => Ok(&config.os.channel),
    }
}

/// Files of the policy that runs, of which a new one may have much.
fn files_of_policy(config: &Config) -> Vec<PathBuf> {
    let Ok(bundle) = parts::bundle(config) else { return vec![] };
    bundle.manifest.parts.values().map(|part| bundle.dir.join(&part.file)).collect()
}

/// The policy that the program carries.
///
/// # Errors
/// If it cannot be laid out.
pub fn built_in(config: &Config) -> Result<Bundle> {
    builtin::open(&config.device.data_dir)
}

/// An update on its way.
pub struct Steps<'a> {
    /// Of this device.
    pub config: &'a Config,
    /// Where it stands.
    pub record: &'a mut Record,
    /// Who writes it down.
    pub ledger: &'a mut dyn Ledger,
    /// Is told each sentence.
    pub say: &'a mut dyn FnMut(&str) -> Result<()>,
}

impl Steps<'_> {
    /// Brings what is offered as far as to a bundle beside the one that runs, or into the other slot. `watch` is told how fetching
    /// goes, and may call it off. Returns how many bytes were fetched.
    ///
    /// # Errors
    /// If the line, the disk or the log fails: it can be gone on with. What is wrong with the policy itself is
    /// no error, and stands in the record.
    pub fn stage(
        &mut self,
        offer: &Offer,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<u64> {
        let own = self.runs()?;
        self.take(Input::Offered {
            channel: &offer.channel,
            release: &offer.release,
            now_unix_s: parts::now().unix_us / 1_000_000,
            agent: AGENT,
            built_in: &own,
        })?;
        let candidate = self.record.plan.candidate.as_ref();
        let ours = candidate.is_some_and(|candidate| candidate.is_of(&offer.channel));
        let mut fetched = 0;
        if self.record.plan.stage == Stage::Fetching && ours {
            fetched = self.fetch(offer, watch)?;
        }
        if self.record.plan.stage == Stage::Verified {
            match self.record.plan.kind {
                Kind::Policy => self.lay_out()?,
                Kind::System => system::hand_over(self)?,
            }
        }
        Ok(fetched)
    }

    /// The policy that came with the program, or the system that runs; a system that does not say what it is takes
    /// none.
    fn runs(&self) -> Result<String> {
        match self.record.plan.kind {
            Kind::Policy => Ok(built_in(self.config)?.id()),
            Kind::System => {
                let system = System::of(self.config);
                Ok(system.id(&system.rauc.status()?.compatible))
            }
        }
    }

    /// Takes one step.
    ///
    /// # Errors
    /// If the log or the disk fails.
    pub fn take(&mut self, input: Input<'_>) -> Result<()> {
        let (told, effects) = self.record.step(input, self.ledger)?;
        told.iter().try_for_each(|sentence| (self.say)(sentence))?;
        if effects.contains(&Effect::Clear) {
            installed::clear(&self.record.plan, &self.config.device.data_dir)?;
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        offer: &Offer,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<u64> {
        let kind = self.record.plan.kind;
        let parts = Parts::open(&installed::folder(kind, &self.config.device.data_dir))?;
        let mut partials = offer.begun(self.config, &parts)?;
        // A moment at which nothing may be fetched is noticed before the first byte.
        if watch(Progress::default()).is_break() {
            return Err(FetchError::CalledOff.into());
        }
        let bound = self.config.update.kilobytes_per_s.filter(|_| !offer.source.is_folder());
        let pace = bound.map(|kilobytes| (kilobytes * 1e3) as u64);
        let progress = fetch(&offer.source, &parts, &mut partials, pace, watch)?;
        for partial in partials {
            if let Err(error) = partial.finish() {
                self.cannot_be_used(error.into())?;
                return Ok(progress.fetched);
            }
        }
        self.take(Input::Fetched)?;
        Ok(progress.fetched)
    }

    fn lay_out(&mut self) -> Result<()> {
        let Some(candidate) = self.record.plan.candidate.clone() else { return Ok(()) };
        let parts = Parts::open(&installed::folder(Kind::Policy, &self.config.device.data_dir))?;
        match parts.lay_out(&candidate.release) {
            Ok(_) => self.take(Input::LaidOut),
            Err(error) => self.cannot_be_used(error.into()),
        }
    }

    /// What is wrong with a policy speaks against it; a device that fails goes on another time.
    fn cannot_be_used(&mut self, error: anyhow::Error) -> Result<()> {
        match is_of_device(&error) {
            true => Err(error),
            false => self.take(Input::Failed(one_line(&error))),
        }
    }

    /// Tries what is staged, if something is: loads it within the memory that is free, and holds it to its golden
    /// answers.
    ///
    /// # Errors
    /// If the log or the disk fails. What is wrong with the policy is no error, and stands in the record.
    pub fn try_it(&mut self) -> Result<()> {
        if self.record.plan.stage != Stage::Staged {
            return Ok(());
        }
        let Some(candidate) = self.record.plan.candidate.clone() else { return Ok(()) };
        let parts = Parts::open(&installed::folder(Kind::Policy, &self.config.device.data_dir))?;
        self.take(Input::TrialBegins)?;
        let dir = parts.bundle(&candidate.release.bundle);
        match trial(&dir, self.config) {
            Ok(_) => self.take(Input::Passed(Value::Null)),
            Err(error) => self.ends_badly(error),
        }
    }

    fn ends_badly(&mut self, error: anyhow::Error) -> Result<()> {
        match is_of_device(&error) {
            true => self.take(Input::Broke(one_line(&error))).and(Err(error)),
            false => self.take(Input::Failed(one_line(&error))),
        }
    }

    /// Begins the trial of what is staged: the policy, loaded and held to its golden answers; `None` if it does not
    /// pass that much, or nothing is staged.
    ///
    /// # Errors
    /// If the log or the disk fails.
    pub fn begin_trial(&mut self) -> Result<Option<Inquirer>> {
        let Some(candidate) = self.record.plan.candidate.clone() else { return Ok(None) };
        if self.record.plan.stage != Stage::Staged {
            return Ok(None);
        }
        let parts = Parts::open(&installed::folder(Kind::Policy, &self.config.device.data_dir))?;
        self.take(Input::TrialBegins)?;
        match trial(&parts.bundle(&candidate.release.bundle), self.config) {
            Ok(inquirer) => Ok(Some(inquirer)),
            Err(error) => self.ends_badly(error).map(|()| None),
        }
    }
}

/// Whether an error is the device's own, as of a disk that cannot be read, and says nothing about a policy.
fn is_of_device(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Whether there is memory for what is staged beside the policy that watches.
///
/// # Errors
/// If it cannot be opened.
pub fn fits_beside(config: &Config, record: &Record) -> Result<bool> {
    let Some(candidate) = &record.plan.candidate else { return Ok(false) };
    let parts = Parts::open(&installed::folder(Kind::Policy, &config.device.data_dir))?;
    let bundle = Bundle::open(parts.bundle(&candidate.release.bundle))?;
    let (sees, speaks) = (accelerator::sees(config), accelerator::speaks(config));
    let needed = Footprint::accelerated(&bundle, sees, speaks)?.total();
    Ok(machine::memory_free().is_none_or(|free| needed <= free))
}

fn trial(dir: &Path, config: &Config) -> Result<Inquirer> {
    let bundle = Bundle::open(dir)?;
    let inquirer = parts::inquirer(&bundle, config)?;
    Golden::hold(&bundle, inquirer.engine())?;
    let mut quarantined: Vec<_> = inquirer.engine().quarantined().collect();
    // What is not to be tried is so for every part.
    quarantined.dedup();
    ensure!(quarantined.is_empty(), "{}", quarantined.join("; "));
    Ok(inquirer)
}
