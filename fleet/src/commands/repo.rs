//! `lookback-fleet repo`: the repository that cameras update their policies from.

use anyhow::Result;
use clap::{Args, Subcommand};
use fleet::repository::{
    self, Hashing, Lifetimes, Overview, Packing, Pause, Redirection, Repository, RootKeys,
    Rotation, Terms,
};
use indicatif::{ProgressBar, ProgressStyle};
use release::{Channel, Kind, Wave};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What can be done with a repository.
#[derive(Subcommand)]
pub enum RepoCommand {
    /// Make a repository, and the keys that sign it.
    Init(InitArguments),
    /// Pack a bundle, or with --os a system, and prepare that a channel offers it.
    Add(AddArguments),
    /// Prepare another course of a channel: other waves, a halt, a return to an older bundle.
    Waves(WavesArguments),
    /// Sign what is prepared; needs targets.pem only, and of DIR all but packs/.
    Sign(SignArguments),
    /// Make what is signed visible, and renew snapshot and timestamp; needs snapshot.pem and timestamp.pem
    /// only. With nothing prepared it is what a timer should run.
    Publish(PublishArguments),
    /// Replace a key. Needs enough root keys; but for the role root also snapshot.pem and timestamp.pem. The
    /// key that is replaced may be lost. The old one is kept as NAME.pem.retired-N.
    Rotate(RotateArguments),
    /// Verify the repository as a camera would, and show how it stands.
    Show(ShowArguments),
    /// Remove the files that neither what is published nor what is prepared needs: older channels, and what only
    /// bundles had that were taken out by `sign --retire`. Needs no key.
    Prune(PruneArguments),
}

#[derive(Args)]
struct Place {
    /// The folder of the repository.
    dir: PathBuf,
    /// Answer as a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Keys {
    /// The folder of the keys, outside of DIR.
    #[arg(long, value_name = "KEYS")]
    keys: PathBuf,
}

#[derive(Args)]
pub struct InitArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// How many keys the root has.
    #[arg(long, value_name = "N", default_value_t = 3)]
    root_keys: u64,
    /// How many of them must sign a new root.
    #[arg(long, value_name = "N", default_value_t = 2)]
    root_threshold: u64,
    /// Days that the root's signatures are good; the targets' are 365, see `sign`, and `publish` for the others.
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().root)]
    expires_days: u32,
}

/// How a channel offers its bundle.
#[derive(Args)]
struct TermsArguments {
    /// Which share of all cameras may have the bundle, and how long after the start, such as
    /// 1%@0h,10%@24h,100%@3d with s, m, h or d; `all` is all at once. [default of a new offer: all]
    #[arg(long, value_name = "WAVES")]
    waves: Option<String>,
    /// When the waves begin: now, or a moment such as 2026-11-30T09:00:00Z. [default of a new offer: now]
    #[arg(long, value_name = "WHEN")]
    start: Option<String>,
    /// No camera of the channel may run a lower version from then on, nor go back to one; it may rise, never
    /// fall. [default: as it is, 0.0.0 at first]
    #[arg(long, value_name = "VERSION")]
    floor: Option<String>,
}

impl TermsArguments {
    fn read(&self, now: SystemTime) -> Result<Terms> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let start = self.start.as_deref().map(|text| repository::start(text, now));
        Ok(Terms {
            waves: self.waves.as_deref().map(repository::waves).transpose()?,
            start_unix_s: start.transpose()?,
            floor: self.floor.clone(),
        })
    }
}

#[derive(Args)]
pub struct AddArguments {
    #[command(flatten)]
    place: Place,
    /// The folder of the bundle, sealed by `lookback-bundle seal`; with --os, the file that RAUC is to install.
    bundle: PathBuf,
    /// The channel that offers it, made if there is none of the name; policies and systems have channels of their
    /// own. [default: stable, with --os os-stable]
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// It is a system, a RAUC bundle in the format verity, for machines of this kind: the `compatible` of their RAUC.
    #[arg(long, value_name = "COMPATIBLE", requires = "version")]
    os: Option<String>,
    /// With --os: its version, major.minor.patch, which is the IMAGE_VERSION of its os-release, too.
    #[arg(long, value_name = "VERSION", requires = "os")]
    version: Option<String>,
    #[command(flatten)]
    terms: TermsArguments,
}

#[derive(Args)]
pub struct WavesArguments {
    #[command(flatten)]
    place: Place,
    /// The channel.
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: String,
    #[command(flatten)]
    terms: TermsArguments,
    /// No camera that has not begun should begin.
    #[arg(long, conflicts_with = "resume")]
    halt: bool,
    /// Cameras may begin again.
    #[arg(long)]
    resume: bool,
    /// Offer another bundle of the repository, by its id NAME@VERSION+HASH: to all at once and from now, unless
    /// --waves or --start says otherwise.
    #[arg(long, value_name = "BUNDLE_ID")]
    to: Option<String>,
}

#[derive(Args)]
pub struct SignArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// Take this bundle, by its id NAME@VERSION+HASH, which no channel offers any more, out of the repository; may be
    /// given several times. `prune` removes its files once that is published.
    #[arg(long, value_name = "BUNDLE_ID")]
    retire: Vec<String>,
    /// Days that the signature is good.
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().targets)]
    expires_days: u32,
}

#[derive(Args)]
pub struct PublishArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// Days that the timestamp is good: publish again before they are over. For so long a camera can be kept from
    /// noticing what is new.
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().timestamp)]
    expires_days: u32,
    /// Days that the snapshot is good.
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().snapshot)]
    snapshot_expires_days: u32,
}

#[derive(Args)]
pub struct RotateArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    keys: Keys,
    /// Whose key: of the root it is the oldest.
    #[arg(long, value_enum)]
    role: Rotation,
    /// Days that the new root's signatures are good.
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().root)]
    expires_days: u32,
}

#[derive(Args)]
pub struct ShowArguments {
    #[command(flatten)]
    place: Place,
    /// Read every pack and hash every chunk.
    #[arg(long)]
    verify: bool,
}

#[derive(Args)]
pub struct PruneArguments {
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub async fn run(command: RepoCommand) -> Result<()> {
    let now = now();
    match command {
        RepoCommand::Init(arguments) => init(&arguments, now).await,
        RepoCommand::Add(arguments) => add(&arguments, now).await,
        RepoCommand::Waves(arguments) => waves(&arguments, now).await,
        RepoCommand::Sign(arguments) => sign(&arguments, now).await,
        RepoCommand::Publish(arguments) => publish(&arguments, now).await,
        RepoCommand::Rotate(arguments) => rotate(&arguments, now).await,
        RepoCommand::Show(arguments) => show(&arguments, now).await,
        RepoCommand::Prune(arguments) => prune(&arguments).await,
    }
}

/// Signatures expire by the clock of whoever signs, and a stick has no database to ask.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn init(arguments: &InitArguments, now: SystemTime) -> Result<()> {
    let Place { dir, .. } = &arguments.place;
    let roots = RootKeys { keys: arguments.root_keys, threshold: arguments.root_threshold };
    let lifetimes = Lifetimes { root: arguments.expires_days, ..Lifetimes::default() };
    let begun = Repository::init(dir, &arguments.keys.keys, roots, lifetimes, now).await?;
    let list = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    answer(&arguments.place, &begun, |out| {
        writeln!(out, "{} is a repository without any policy yet", dir.display())?;
        writeln!(out, "cameras are to trust     {}", begun.root.display())?;
        writeln!(out, "keys to take offline     {}", list(&begun.offline))?;
        writeln!(out, "keys that publish needs  {}", list(&begun.online))
    })
}

async fn add(arguments: &AddArguments, now: SystemTime) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let terms = arguments.terms.read(now)?;
    let bar = ProgressBar::new(0);
    if arguments.place.json {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("packing [{bar:40}] {percent:>3} %  {eta} left")
    {
        bar.set_style(style);
    }
    let progress = |packing| match packing {
        Packing::Begin { bytes } => bar.set_length(bytes),
        Packing::Done { bytes } => bar.inc(bytes),
    };
    let (path, system) =
        (&arguments.bundle, arguments.os.as_deref().zip(arguments.version.as_deref()));
    let usual = if system.is_some() { "os-stable" } else { "stable" };
    let channel = arguments.channel.as_deref().unwrap_or(usual);
    let added = match system {
        None => repository::add(&repository, path, channel, &terms, now, progress).await,
        Some((compatible, version)) => {
            let system = (path.as_path(), compatible, version);
            repository::add_system(&repository, system, channel, &terms, now, progress).await
        }
    };
    bar.finish_and_clear();
    let added = added?;
    answer(&arguments.place, &added, |out| {
        let (bytes, new) = (shown(added.bytes), shown(added.new_bytes));
        writeln!(out, "{} is packed: {new} new of {bytes}", added.bundle)?;
        write_channel(out, &added.channel)?;
        if !added.golden && added.kind == Kind::Policy {
            writeln!(
                out,
                "it has no golden answers, by which a camera sees that it computes what you did: give it some \
                 with `lookback-models golden {}`, and add it anew",
                arguments.bundle.display()
            )?;
        }
        writeln!(out, "next: lookback-fleet repo sign")
    })
}

async fn waves(arguments: &WavesArguments, now: SystemTime) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let pause = match (arguments.halt, arguments.resume) {
        (true, _) => Some(Pause::Halt),
        (_, true) => Some(Pause::Resume),
        _ => None,
    };
    let terms = arguments.terms.read(now)?;
    let redirection = Redirection { terms, pause, to: arguments.to.clone() };
    let channel = repository::redirect(&repository, &arguments.channel, &redirection, now).await?;
    answer(&arguments.place, &channel, |out| {
        write_channel(out, &channel)?;
        writeln!(out, "next: lookback-fleet repo sign")
    })
}

async fn sign(arguments: &SignArguments, now: SystemTime) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let lifetimes = Lifetimes { targets: arguments.expires_days, ..Lifetimes::default() };
    let (keys, retired) = (&arguments.keys.keys, &arguments.retire);
    let signed = repository::sign_without(&repository, keys, retired, lifetimes, now).await?;
    answer(&arguments.place, &signed, |out| {
        let (version, days) = (signed.version, arguments.expires_days);
        let what = changed(signed.targets.len());
        writeln!(out, "targets.json {version}, {what}, is signed for {days} days")?;
        if !signed.retired.is_empty() {
            writeln!(out, "{} taken out", counted(signed.retired.len(), "target"))?;
        }
        writeln!(out, "it is {}", signed.file.display())?;
        writeln!(out, "next: lookback-fleet repo publish")
    })
}

async fn publish(arguments: &PublishArguments, now: SystemTime) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let lifetimes = Lifetimes {
        timestamp: arguments.expires_days,
        snapshot: arguments.snapshot_expires_days,
        ..Lifetimes::default()
    };
    let published = repository::publish(&repository, &arguments.keys.keys, lifetimes, now).await?;
    answer(&arguments.place, &published, |out| {
        let days = arguments.expires_days;
        let (version, what) = (published.targets_version, changed(published.targets.len()));
        writeln!(out, "targets.json {version}, {what}; the timestamp is good for {days} days")?;
        for role in &published.expiring {
            let remedy = if *role == "root" { "rotate --role root" } else { "sign" };
            writeln!(out, "{role}.json expires within a month: run lookback-fleet repo {remedy}")?;
        }
        Ok(())
    })
}

async fn rotate(arguments: &RotateArguments, now: SystemTime) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let lifetimes = Lifetimes { root: arguments.expires_days, ..Lifetimes::default() };
    let keys = &arguments.keys.keys;
    let rotated = repository::rotate(&repository, keys, arguments.role, lifetimes, now).await?;
    answer(&arguments.place, &rotated, |out| {
        let (role, version) = (&rotated.role, rotated.root_version);
        writeln!(out, "root.json {version} trusts {} for {role}.json", rotated.key.display())?;
        match &rotated.retired {
            Some(path) => writeln!(out, "the old key is {}", path.display()),
            None => writeln!(out, "the old key is not here; wherever it is, it is good no more"),
        }
    })
}

async fn prune(arguments: &PruneArguments) -> Result<()> {
    let repository = Repository::open(&arguments.place.dir)?;
    let pruned = repository::prune(&repository).await?;
    answer(&arguments.place, &pruned, |out| {
        let targets = counted(pruned.targets, "old target");
        let (packs, bytes) = (counted(pruned.packs, "pack"), shown(pruned.bytes));
        writeln!(
            out,
            "{targets}, {packs} and {} of metadata removed: {bytes}",
            counted(pruned.metadata, "file")
        )
    })
}

async fn show(arguments: &ShowArguments, now: SystemTime) -> Result<()> {
    let hashing = if arguments.verify { Hashing::Chunks } else { Hashing::Lengths };
    let overview = repository::overview(&arguments.place.dir, hashing, now).await?;
    answer(&arguments.place, &overview, |out| write_overview(out, &arguments.place.dir, &overview))
}

fn write_overview(out: &mut dyn Write, dir: &Path, overview: &Overview) -> io::Result<()> {
    writeln!(out, "{} is as it was signed", dir.display())?;
    for role in &overview.roles {
        let soon = if role.expires_soon { "  within a week" } else { "" };
        writeln!(
            out,
            "{:<9}  version {:<5} {} of {} keys  expires {}{soon}",
            role.role, role.version, role.threshold, role.keys, role.expires
        )?;
    }
    for state in &overview.channels {
        write_channel(out, &state.channel)?;
        writeln!(out, "    from {}", state.start)?;
    }
    for bundle in &overview.bundles {
        let bytes = shown(bundle.bytes);
        let files = counted(bundle.files, "file");
        let kind = if bundle.kind == Kind::System { "system" } else { "bundle" };
        writeln!(out, "{kind} {}: {files}, {bytes}", bundle.bundle)?;
    }
    let (packs, bytes) = (&overview.packs, shown(overview.packs.bytes));
    let hashed = if packs.hashed { "every chunk as it should be" } else { "of the right length" };
    writeln!(out, "{}, {bytes}, {hashed}", counted(packs.count, "pack"))?;
    if !overview.staged.is_empty() {
        writeln!(out, "prepared and not visible: {}", overview.staged.join(", "))?;
    }
    if overview.unfinished {
        writeln!(out, "a publication was cut off: run lookback-fleet repo publish")?;
    }
    Ok(())
}

fn write_channel(out: &mut dyn Write, channel: &Channel) -> io::Result<()> {
    let halted = if channel.halted { ", halted" } else { "" };
    let wave = |wave: &Wave| format!("{}%@{}", wave.share * 100.0, shown_time(wave.after_s));
    let waves: Vec<String> = channel.waves.iter().map(wave).collect();
    let waves = if waves.is_empty() { "all at once".into() } else { waves.join(",") };
    writeln!(
        out,
        "channel {} number {}: {}, {waves}, floor {}{halted}",
        channel.channel, channel.number, channel.bundle, channel.floor
    )
}

/// As [`repository::waves`] reads it.
fn shown_time(seconds: u64) -> String {
    let fits = |(of, unit): &(u64, &str)| {
        seconds.is_multiple_of(*of).then(|| format!("{}{unit}", seconds / of))
    };
    [(3_600, "h"), (60, "m")].iter().find_map(fits).unwrap_or_else(|| format!("{seconds}s"))
}

fn changed(targets: usize) -> String {
    match targets {
        0 => "as before".into(),
        n => format!("{} new or changed", counted(n, "target")),
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn shown(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// As JSON if that was asked for, else as people read it.
fn answer(
    place: &Place,
    value: &impl Serialize,
    readable: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut out = io::stdout().lock();
    match place.json {
        true => writeln!(out, "{}", serde_json::to_string(value)?)?,
        false => readable(&mut out)?,
    }
    Ok(())
}
