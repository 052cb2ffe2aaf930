//! What to do about an update: pure. A plan and what happened give the next plan and what is to be done.
//!
//! ```text
//! Idle ──offered──▶ Fetching ──fetched──▶ Verified ──laid out──▶ Staged ──begun──▶ Trial ──passed──▶ Committed
//!                       └───────────────────────┴───────── failed ─────┴──────────────┘
//!                                                            ▼
//!                                                        RolledBack
//! ```
//!
//! The log keeps the plan; each step is one transaction with what it tells. What watches follows from the plan
//! alone ([`Plan::runs`]): until a trial has passed it is the old policy, beside which the new one is tried.
//!
//! A system goes the same way under a plan of its own. Where a policy is laid out beside another, RAUC installs a
//! system into the other slot; its trial begins with the start of the machine that finds it running
//! ([`Input::Booted`]), and what runs is then for the machine to say.

use bundle::Version;
use release::{Admission, Channel, Kind, Release};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A trial that has begun so often and never ended has failed: the policy takes the program down with it.
const STARTS_MAX: u32 = 2;
/// After so many in a row that were not kept, the device itself may be what is wrong: it waits.
const FAILURES_MAX: u32 = 3;
/// A system that was handed to RAUC so often, and never was installed or refused, has failed.
const HANDOVERS_MAX: u32 = 2;
/// For so long, before it takes another one; after it a single failure is enough to wait again.
const PENALTY_S: i64 = 86_400;

/// Where an update stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// Its files are coming.
    Fetching,
    /// They are all there, and what was signed.
    Verified,
    /// They are laid out as a bundle, beside the one that runs; a system is in the other slot, and starts next.
    Staged,
    /// It is tried beside the one that runs; a system has started.
    Trial,
    /// It is the device's policy, or system.
    Committed,
    /// It is not, and never will be under this number.
    RolledBack,
}

/// What a device has, or could have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// `name@version+hash`.
    pub bundle: String,
    /// `major.minor.patch`.
    pub version: String,
    /// The release that it came with; `None`: it came with the program.
    pub release: Option<Release>,
}

/// A policy or a system that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The channel that offered it.
    #[serde(default)]
    pub channel: String,
    /// The channel's number that offered it.
    pub number: u64,
    /// The wave in which the device is, counted from 1.
    #[serde(default)]
    pub wave: usize,
    /// What it is.
    pub release: Release,
}

impl Candidate {
    /// Whether this number of this channel offered it.
    pub fn is_of(&self, channel: &Channel) -> bool {
        // A record of before channels were kept names none.
        let same = self.channel == channel.channel || self.channel.is_empty();
        same && self.number == channel.number
    }
}

/// The start of a machine, and what it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Hash of the root that runs.
    pub root: String,
    /// The kernel's name for this start of the machine.
    pub id: String,
}

/// All that an updater must not forget, but what it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of what.
    #[serde(default, skip_serializing_if = "Kind::is_policy")]
    pub kind: Kind,
    /// Where the newest update stands.
    pub stage: Stage,
    /// What is on its way, or came to an end last.
    pub candidate: Option<Candidate>,
    /// Why it was rolled back, if it was.
    pub why: Option<String>,
    /// What the device runs; `None`: what came with the program.
    pub active: Option<Slot>,
    /// What it ran before, and can go back to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub previous: Option<Option<Slot>>,
    /// The channel that is followed; empty: none yet.
    #[serde(default)]
    pub channel: String,
    /// The highest number of the channel that was followed.
    pub number: u64,
    /// No version below it, `major.minor.patch`; empty: none is too low.
    pub floor: String,
    /// The device's place in every wave.
    pub seed: u16,
    /// How often the trial has begun; of a system, how often it was handed to RAUC.
    pub starts: u32,
    /// What ran when it was handed to RAUC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Boot>,
    /// How many policies in a row failed here.
    #[serde(default)]
    pub failures: u32,
    /// Since when it waits before it takes another one, for they were too many; in seconds since 1970.
    #[serde(default)]
    pub waits_since_unix_s: Option<i64>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A believed channel offers this release, at this time in seconds since 1970. `agent` is the version of
    /// the program, and `built_in` the bundle that came with it; of a system it is what runs, `compatible@version`.
    Offered {
        /// The channel.
        channel: &'a Channel,
        /// Its release.
        release: &'a Release,
        /// Seconds since 1970.
        now_unix_s: i64,
        /// `major.minor.patch`
        agent: &'a str,
        /// Id of the bundle that the program carries.
        built_in: &'a str,
    },
    /// A person brings a system, whose file is there and verified; `agent` and `built_in` as above.
    Brought {
        /// What it is.
        release: &'a Release,
        /// What runs.
        built_in: &'a str,
    },
    /// Every file of the candidate is there and verified.
    Fetched,
    /// It is handed to RAUC, by what runs now.
    HandedOver(Boot),
    /// It is laid out, and opens as a bundle; of a system, RAUC has installed it.
    LaidOut,
    /// The program has started on this start of the machine.
    Booted(&'a Boot),
    /// Its trial begins.
    TrialBegins,
    /// The program has started: whatever policy was tried is not any more.
    Started,
    /// The trial was ended in good order before it was over.
    CalledOff,
    /// The device failed in its trial, as a disk does, which says nothing about it; what failed.
    Broke(String),
    /// Its trial ended well; what was seen in it.
    Passed(Value),
    /// It cannot be used, or its trial ended badly.
    Failed(String),
    /// A person wants the policy before this one back. `built_in` is the version of the one that came with the
    /// program.
    GoBack {
        /// `major.minor.patch`
        built_in: &'a str,
    },
}

/// What is to be done once the plan is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Tell this, as an event.
    Say {
        /// A plain sentence.
        sentence: String,
        /// Its facts.
        fields: Value,
    },
    /// Nothing but what the plan names is needed on the disk any more.
    Clear,
    /// Another policy is to run from now on.
    Switch,
}

/// Reads what is there: that nothing but the program's own policy ran before is something, too.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Slot>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

impl Plan {
    /// What runs, by this plan; `None`: what came with the program.
    pub fn runs(&self) -> Option<&Release> {
        self.active.as_ref().and_then(|slot| slot.release.as_ref())
    }

    /// Whether an update stands where it stood in `other`; that a floor rose moves none.
    pub fn stands_as(&self, other: &Self) -> bool {
        let place =
            |plan: &Self| (plan.stage, plan.number, plan.candidate.clone(), plan.active.clone());
        place(self) == place(other)
    }

    /// Until when nothing new is taken, since too much failed; in seconds since 1970.
    pub fn waits_until_unix_s(&self) -> Option<i64> {
        self.waits_since_unix_s.map(|since| since.saturating_add(PENALTY_S))
    }

    /// Releases whose files are needed.
    pub fn needs(&self) -> Vec<&Release> {
        if self.kind == Kind::System {
            // What RAUC has taken lies in a slot.
            let coming = matches!(self.stage, Stage::Fetching | Stage::Verified);
            return self.candidate.iter().filter(|_| coming).map(|c| &c.release).collect();
        }
        let slots = [self.active.as_ref(), self.previous.as_ref().and_then(Option::as_ref)];
        let kept = slots.into_iter().flatten().filter_map(|slot| slot.release.as_ref());
        let underway = !matches!(self.stage, Stage::Idle | Stage::Committed | Stage::RolledBack);
        let candidate = self.candidate.as_ref().filter(|_| underway).map(|c| &c.release);
        kept.chain(candidate).collect()
    }

    /// The next plan, and what is to be done.
    pub fn step(self, input: Input<'_>) -> (Self, Vec<Effect>) {
        // Nothing of a system ends with the program, and its way back is the machine's.
        let is_of_policies = matches!(
            input,
            Input::TrialBegins
                | Input::Started
                | Input::Broke(_)
                | Input::CalledOff
                | Input::GoBack { .. }
        );
        if self.kind == Kind::System && is_of_policies {
            return (self, vec![]);
        }
        match input {
            Input::Offered { channel, release, now_unix_s, agent, built_in } => {
                self.offered(channel, release, now_unix_s, agent, built_in)
            }
            Input::Brought { release, built_in } => self.brought(release, built_in),
            Input::Fetched => self.moves(Stage::Fetching, Stage::Verified),
            Input::HandedOver(left) => self.handed_over(left),
            Input::LaidOut => self.laid_out(),
            Input::Booted(boot) => self.booted(boot),
            Input::TrialBegins => {
                let (mut plan, effects) = self.moves(Stage::Staged, Stage::Trial);
                if !effects.is_empty() {
                    plan.starts += 1;
                }
                (plan, effects)
            }
            Input::Started => self.cut_off("by the end of the program"),
            Input::Broke(why) => self.cut_off(&format!("since the device failed ({why})")),
            Input::CalledOff => self.called_off(),
            Input::Passed(seen) => self.passed(&seen),
            Input::Failed(why) => self.failed_here(why),
            Input::GoBack { built_in } => self.go_back(built_in),
        }
    }

    fn offered(
        mut self,
        channel: &Channel,
        release: &Release,
        now: i64,
        agent: &str,
        built_in: &str,
    ) -> (Self, Vec<Effect>) {
        // A trial decides about itself; the next offer waits for it. A system that is installed is as good as on trial.
        if self.stage == Stage::Trial || (self.stage == Stage::Staged && self.kind == Kind::System)
        {
            return (self, vec![]);
        }
        if self.channel != channel.channel {
            // Numbers are a channel's own: whoever gives the device another one lets it begin there. The floor stays.
            if !self.channel.is_empty() {
                self.number = 0;
            }
            self.channel = channel.channel.clone();
        }
        if channel.number < self.number {
            return (self, vec![]);
        }
        if channel.halted && self.stage_is_underway() {
            // What came stays, for when it is taken up again.
            self.stage = Stage::Idle;
            let say = self.say("waits: its rollout was halted");
            self.candidate = None;
            return (self, vec![say]);
        }
        // A number that was followed is not followed again, however it ended, and no lower one ever.
        let known = self.candidate.as_ref().is_some_and(|candidate| candidate.is_of(channel));
        if channel.number == self.number && known {
            return (self, vec![]);
        }
        if Version::parse(&channel.floor) > Version::parse(&self.floor) {
            self.floor = channel.floor.clone();
        }
        if self.is_running(release, built_in) {
            self.number = channel.number;
            let underway = !self.needs().is_empty() && self.stage_is_underway();
            if underway {
                // What is on its way is no longer wanted.
                (self.stage, self.candidate) = (Stage::Idle, None);
                return (self, vec![Effect::Clear]);
            }
            return (self, vec![]);
        }
        let refused = match () {
            () if Version::parse(&release.version) < Version::parse(&self.floor) => {
                Some(self.is_too_low())
            }
            () if self.is_strange(release, built_in).is_some() => {
                self.is_strange(release, built_in)
            }
            () if Version::parse(&release.min_agent) > Version::parse(agent) => Some(format!(
                "it needs version {} of this program, which is {agent}",
                release.min_agent
            )),
            () => None,
        };
        let candidate = Candidate {
            channel: channel.channel.clone(),
            number: channel.number,
            wave: channel.wave(self.seed).unwrap_or_default(),
            release: release.clone(),
        };
        if let Some(why) = refused {
            self.number = channel.number;
            (self.stage, self.candidate) = (Stage::Fetching, Some(candidate));
            return self.failed(why);
        }
        if channel.admits(self.seed, now) != Admission::Now {
            let low =
                |c: &Candidate| Version::parse(&c.release.version) < Version::parse(&self.floor);
            if self.candidate.as_ref().is_some_and(low) {
                let why = self.is_too_low();
                return self.failed(why);
            }
            return (self, vec![]);
        }
        if self.failures >= FAILURES_MAX {
            let Some(since) = self.waits_since_unix_s else {
                self.waits_since_unix_s = Some(now);
                let say = self.say_that_it_waits();
                return (self, vec![say]);
            };
            if now < since {
                // The clock was set back: it waits from here.
                self.waits_since_unix_s = Some(now);
                return (self, vec![]);
            }
            if now < since.saturating_add(PENALTY_S) {
                return (self, vec![]);
            }
            (self.failures, self.waits_since_unix_s) = (FAILURES_MAX - 1, None);
        }
        self.number = channel.number;
        (self.stage, self.candidate, self.why) = (Stage::Fetching, Some(candidate), None);
        (self.starts, self.left) = (0, None);
        let say = self.say("is being fetched");
        (self, vec![say, Effect::Clear])
    }

    /// Whether it is what runs already. A system says itself what it is: whoever flashes one asks nobody.
    fn is_running(&self, release: &Release, built_in: &str) -> bool {
        match self.kind {
            Kind::Policy => {
                release.bundle == self.runs().map_or(built_in, |release| &release.bundle)
            }
            Kind::System => format!("{}@{}", release.name, release.version) == built_in,
        }
    }

    /// Why it is nothing for this device, whatever its version.
    fn is_strange(&self, release: &Release, built_in: &str) -> Option<String> {
        if release.kind != self.kind {
            let (found, wanted) = (release.kind.word(), self.kind.word());
            return Some(format!("it is a {found} where a {wanted} is wanted"));
        }
        let machine = built_in.split('@').next().unwrap_or_default();
        (self.kind == Kind::System && release.name != machine).then(|| {
            format!("it is for machines of the kind {}, and this is {machine}", release.name)
        })
    }

    fn is_too_low(&self) -> String {
        format!("the fleet runs nothing below {}", self.floor)
    }

    fn brought(mut self, release: &Release, built_in: &str) -> (Self, Vec<Effect>) {
        if self.kind != Kind::System || matches!(self.stage, Stage::Staged | Stage::Trial) {
            return (self, vec![]);
        }
        let is_too_low = Version::parse(&release.version) < Version::parse(&self.floor);
        let refused = is_too_low.then(|| self.is_too_low());
        let refused = refused.or_else(|| self.is_strange(release, built_in));
        // It is of no channel, and the number that was followed last is not followed again after it.
        let (channel, number, wave) = (String::new(), self.number, 0);
        self.candidate = Some(Candidate { channel, number, wave, release: release.clone() });
        (self.stage, self.why, self.starts, self.left) = (Stage::Verified, None, 0, None);
        match refused {
            Some(why) => self.failed(why),
            None => {
                let say = self.say("was brought by a person");
                (self, vec![say, Effect::Clear])
            }
        }
    }

    fn handed_over(mut self, left: Boot) -> (Self, Vec<Effect>) {
        if self.stage != Stage::Verified {
            return (self, vec![]);
        }
        if self.starts >= HANDOVERS_MAX {
            let why = format!("its installation was cut off {} times", self.starts);
            return self.failed_here(why);
        }
        (self.starts, self.left) = (self.starts + 1, Some(left));
        (self, vec![])
    }

    fn laid_out(self) -> (Self, Vec<Effect>) {
        if self.kind == Kind::System && self.left.is_none() {
            return (self, vec![]);
        }
        let (mut plan, mut effects) = self.moves(Stage::Verified, Stage::Staged);
        if plan.kind == Kind::System && !effects.is_empty() {
            plan.starts = 0;
            effects.push(Effect::Clear);
        }
        (plan, effects)
    }

    /// One step of what the start of the machine brings; there may be another.
    fn booted(self, boot: &Boot) -> (Self, Vec<Effect>) {
        let is_another = self.left.as_ref().is_some_and(|left| left.root != boot.root);
        let is_by_hand = self.candidate.as_ref().is_some_and(|c| c.channel.is_empty());
        let has_restarted = self.left.as_ref().is_none_or(|left| left.id != boot.id);
        match self.stage {
            // The power failed after RAUC was done and before that was written down.
            Stage::Verified if is_another => self.laid_out(),
            // The file of it may be gone, and was nobody's but a person's.
            Stage::Verified if is_by_hand => {
                self.failed("its installation was cut off: bring it again".to_owned())
            }
            Stage::Staged if is_another => self.moves(Stage::Staged, Stage::Trial),
            Stage::Staged if has_restarted => self
                .failed_here("the machine has started, and the old system runs again".to_owned()),
            Stage::Trial if !is_another => self.failed_here(
                "it had started and was not confirmed, and the old system runs again".to_owned(),
            ),
            _ => (self, vec![]),
        }
    }

    fn stage_is_underway(&self) -> bool {
        matches!(self.stage, Stage::Fetching | Stage::Verified | Stage::Staged | Stage::Trial)
    }

    fn moves(mut self, from: Stage, to: Stage) -> (Self, Vec<Effect>) {
        if self.stage != from {
            return (self, vec![]);
        }
        self.stage = to;
        let say = self.say(match (to, self.kind) {
            (Stage::Verified, _) => "has come, and is what was signed",
            (Stage::Staged, Kind::Policy) => "is laid out beside the policy that runs",
            (Stage::Staged, Kind::System) => "is installed in the other slot, and starts next",
            (_, Kind::Policy) => "is on trial",
            (_, Kind::System) => "has started, and is on trial",
        });
        (self, vec![say])
    }

    fn cut_off(mut self, how: &str) -> (Self, Vec<Effect>) {
        if self.stage != Stage::Trial {
            return (self, vec![]);
        }
        if self.starts >= STARTS_MAX {
            let why = format!("its trial was cut off {} times, now {how}", self.starts);
            return self.failed_here(why);
        }
        self.stage = Stage::Staged;
        let say = self.say(&format!("is to be tried again: its trial was cut off {how}"));
        (self, vec![say])
    }

    fn called_off(mut self) -> (Self, Vec<Effect>) {
        if self.stage == Stage::Trial {
            (self.stage, self.starts) = (Stage::Staged, self.starts.saturating_sub(1));
        }
        (self, vec![])
    }

    fn passed(mut self, seen: &Value) -> (Self, Vec<Effect>) {
        let (Stage::Trial, Some(candidate)) = (self.stage, &self.candidate) else {
            return (self, vec![]);
        };
        let release = candidate.release.clone();
        let slot = Slot {
            bundle: release.bundle.clone(),
            version: release.version.clone(),
            release: Some(release),
        };
        let before = self.active.replace(slot);
        self.previous = self.kind.is_policy().then_some(before);
        (self.stage, self.starts) = (Stage::Committed, 0);
        (self.failures, self.waits_since_unix_s) = (0, None);
        let mut say = self.say(match self.kind {
            Kind::Policy => "is the policy from now on",
            Kind::System => "is confirmed",
        });
        if let Effect::Say { fields, .. } = &mut say {
            fields["trial"] = seen.clone();
        }
        (self, vec![say, Effect::Switch, Effect::Clear])
    }

    /// After something was tried of it.
    fn failed_here(mut self, why: String) -> (Self, Vec<Effect>) {
        if self.stage_is_underway() {
            self.failures = self.failures.saturating_add(1);
        }
        self.failed(why)
    }

    fn failed(mut self, why: String) -> (Self, Vec<Effect>) {
        if !self.stage_is_underway() {
            return (self, vec![]);
        }
        (self.stage, self.starts, self.why) = (Stage::RolledBack, 0, Some(why.clone()));
        let say = self.say(&format!("is not taken: {why}"));
        (self, vec![say, Effect::Clear])
    }

    fn go_back(mut self, built_in: &str) -> (Self, Vec<Effect>) {
        if self.stage_is_underway() {
            return self.failed("a person went back".to_owned());
        }
        let Some(previous) = self.previous.clone() else { return (self, vec![]) };
        let to = previous.as_ref().map_or(built_in, |slot| &slot.version);
        if Version::parse(to) < Version::parse(&self.floor) {
            let sentence = format!(
                "there is no way back to {to}: the fleet runs nothing below {}",
                self.floor
            );
            return (self, vec![Effect::Say { sentence, fields: json!({"floor": null}) }]);
        }
        self.previous = None;
        let left = std::mem::replace(&mut self.active, previous);
        (self.stage, self.why) = (Stage::RolledBack, Some("a person went back".to_owned()));
        let left = left.map_or_else(String::new, |slot| slot.bundle);
        let sentence = format!("the policy {left} was left, since a person went back");
        let mut fields = self.facts();
        fields["bundle"] = left.into();
        (self, vec![Effect::Say { sentence, fields }, Effect::Switch, Effect::Clear])
    }

    fn say(&self, what: &str) -> Effect {
        let fields = self.facts();
        let bundle = fields["bundle"].as_str().unwrap_or_default();
        Effect::Say { sentence: format!("the {} {bundle} {what}", self.kind.word()), fields }
    }

    /// What an event of the newest update tells: the fleet server counts by them how a rollout goes.
    fn facts(&self) -> Value {
        let candidate = self.candidate.as_ref();
        let mut facts = json!({
            "stage": self.stage,
            "bundle": candidate.map_or("", |c| &c.release.bundle),
            "channel": candidate.map(|c| &c.channel),
            "number": self.number,
            "wave": candidate.map(|c| c.wave),
            "why": self.why,
        });
        if self.kind == Kind::System {
            facts["what"] = self.kind.word().into();
        }
        facts
    }

    fn say_that_it_waits(&self) -> Effect {
        let (hours, until) = (PENALTY_S / 3600, self.waits_until_unix_s());
        let sentence = format!(
            "no new {} is taken for {hours} hours, since {} in a row failed on this device",
            self.kind.word(),
            self.failures
        );
        Effect::Say { sentence, fields: json!({"failures": self.failures, "until_unix_s": until}) }
    }
}

#[cfg(test)]
mod tests;
