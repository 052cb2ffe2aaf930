//! A whole day of a board, step by step, whatever it is told and whatever its contacts do: what must
//! hold does, at every step. It is checked on the wires, by rules that know nothing of the machines.

mod sim;

use hal_board::{AlarmRequest, BoardOptions, CAMERAS_MAX, EVENTS_MAX, Millis, Pace, Progress};
use hal_board::{Asked, STEP_MS, Temperature, ThrottleLevel, Told, WatchdogOptions};
use proptest::prelude::*;
use proptest::sample::select;
use sim::{Bench, LAMP_FULL};

const DAY_MS: u64 = 24 * 3_600_000;

/// What does not change for a while.
#[derive(Clone, Debug)]
struct Stretch {
    for_ms: u64,
    step_ms: u64,
    told: Told,
    parts: [Conduct; 3],
    tamper: Wiring,
    door: Wiring,
    /// Whether anybody fetches the events.
    fetched: bool,
    light_broken: bool,
}

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    Moves,
    Stands,
    Idles,
}

/// What a contact does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wiring {
    Low,
    High,
    Bounces,
    Broken,
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let conduct = || select(vec![Conduct::Moves, Conduct::Moves, Conduct::Stands, Conduct::Idles]);
    let wiring = || select(vec![Wiring::Low, Wiring::High, Wiring::Bounces, Wiring::Broken]);
    // As many short ones as long ones, from one step to a quarter of an hour.
    let for_ms = (0_u32..14).prop_flat_map(|power| 50_u64 << power..=100 << power);
    let told = (
        prop::array::uniform6(prop::bool::weighted(0.2)),
        prop::option::of((0_u32..5).prop_map(AlarmRequest)),
        prop::option::of(select(vec![0.0_f32, 0.1, 0.2, 0.5, 1.0, f32::NAN])),
        temperature(),
    );
    (
        (for_ms, select(vec![20_u64, 50, 50, 50, 210, 990])),
        told,
        [conduct(), conduct(), conduct()],
        (wiring(), wiring()),
        (prop::bool::weighted(0.8), prop::bool::weighted(0.1)),
    )
        .prop_map(
            |((for_ms, step_ms), told, parts, (tamper, door), (fetched, light_broken))| {
                let (flags, alarm, ambient, temperature) = told;
                let told = Told {
                    watching: !flags[0],
                    inquiring: flags[1],
                    updating: flags[2],
                    identify: flags[3],
                    camera_trouble: flags[4],
                    store_trouble: flags[5],
                    alarm,
                    ambient,
                    temperature,
                    progress: Progress::default(),
                };
                Stretch { for_ms, step_ms, told, parts, tamper, door, fetched, light_broken }
            },
        )
}

fn temperature() -> impl Strategy<Value = Temperature> {
    prop_oneof![
        Just(Temperature::NoSensor),
        Just(Temperature::Unread),
        any::<i32>().prop_map(Temperature::MilliCelsius),
        (20_000..110_000).prop_map(Temperature::MilliCelsius),
    ]
}

proptest! {
    // A day is more than a million steps.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_day_of_anything_keeps_what_must_hold(stretches in prop::collection::vec(stretch(), 40..200)) {
        let mut day = Day::new(BoardOptions::default());
        for stretch in stretches.iter().cycle() {
            if day.now >= DAY_MS {
                break;
            }
            day.live(stretch)?;
        }
    }
}

/// A board, and what each rule remembers of its wires.
struct Day {
    bench: Bench,
    options: BoardOptions,
    now: u64,
    noise: u32,
    counts: [u64; 3],
    relay: RelayRule,
    light: LightRule,
    watchdog: WatchdogRule,
    heat: HeatRule,
}

impl Day {
    fn new(options: BoardOptions) -> Self {
        Self {
            bench: Bench::new(options),
            options,
            now: 0,
            noise: 1,
            counts: [0; 3],
            relay: RelayRule::default(),
            light: LightRule::default(),
            watchdog: WatchdogRule::default(),
            heat: HeatRule::default(),
        }
    }

    fn live(&mut self, stretch: &Stretch) -> Result<(), TestCaseError> {
        let until = self.now + stretch.for_ms;
        while self.now < until {
            self.now += stretch.step_ms;
            self.step(stretch)?;
        }
        Ok(())
    }

    fn step(&mut self, stretch: &Stretch) -> Result<(), TestCaseError> {
        for (wire, wiring) in
            [(&self.bench.tamper, stretch.tamper), (&self.bench.door, stretch.door)]
        {
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            wire.break_it(wiring == Wiring::Broken);
            match wiring {
                Wiring::Bounces => wire.drive(self.noise >> 30 == 0),
                level => wire.drive(level == Wiring::High),
            }
        }
        self.bench.light.break_it(stretch.light_broken);
        let told = Told { progress: self.progress(stretch), ..stretch.told };
        let asked = self.bench.board.step(Millis(self.now), &told);
        let now = self.now;
        self.relay.check(&self.options, now, told.alarm, self.bench.relay.is_high())?;
        let seen = !stretch.light_broken && stretch.step_ms <= STEP_MS;
        self.light.check(now, self.bench.light.is_high(), seen)?;
        self.watchdog.check(&self.options.watchdog, now, &told.progress, asked.kick_watchdog)?;
        self.heat.check(
            &self.options,
            now,
            told.temperature,
            &asked,
            self.bench.infrared.duty(),
        )?;
        if stretch.fetched {
            let fetched = self.bench.events();
            prop_assert!(fetched.len() <= EVENTS_MAX + 1, "{} events waited", fetched.len());
            let times: Vec<u64> = fetched.iter().map(|(ms, _)| *ms).collect();
            // The first may tell of what was dropped between the ones that are urgent.
            prop_assert!(times.iter().skip(1).is_sorted(), "{times:?}");
        }
        Ok(())
    }

    fn progress(&mut self, stretch: &Stretch) -> Progress {
        let paces: [Pace; 3] = std::array::from_fn(|part| {
            self.counts[part] += u64::from(stretch.parts[part] == Conduct::Moves);
            match stretch.parts[part] {
                Conduct::Idles => Pace::Idle,
                Conduct::Moves | Conduct::Stands => Pace::Count(self.counts[part]),
            }
        });
        let mut capture = [Pace::Idle; CAMERAS_MAX];
        capture[2] = paces[0];
        Progress { capture, store: paces[1], inquiry: paces[2] }
    }
}

/// Never shorter than its times, never without a request, nor with an old one, for longer than its limit;
/// and no request is lost.
#[derive(Default)]
struct RelayRule {
    on: bool,
    since: u64,
    request: Option<AlarmRequest>,
    renewed: u64,
    unheard: bool,
}

impl RelayRule {
    fn check(
        &mut self,
        options: &BoardOptions,
        now: u64,
        request: Option<AlarmRequest>,
        on: bool,
    ) -> Result<(), TestCaseError> {
        let options = options.relay;
        if request.is_some() && request != self.request {
            (self.request, self.renewed, self.unheard) = (request, now, true);
        }
        if on != self.on {
            let least_ms = if self.on { options.min_on_ms } else { options.min_off_ms };
            let lasted_ms = now - self.since;
            prop_assert!(lasted_ms >= least_ms, "{lasted_ms} ms, then on is {on}, at {now}");
            (self.on, self.since) = (on, now);
        }
        let asked_ms = now - self.renewed.max(self.since);
        let may = now - self.since < options.min_on_ms
            || request.is_some() && asked_ms < options.longest_on_ms;
        prop_assert!(!on || may, "on without being asked at {now}");
        self.unheard &= !on;
        let waits_ms = now - self.renewed;
        prop_assert!(
            !self.unheard || waits_ms <= options.min_off_ms + 990,
            "asked for {waits_ms} ms ago, and not rung for, at {now}"
        );
        Ok(())
    }
}

/// The lamp always says something: none of its patterns stands still.
#[derive(Default)]
struct LightRule {
    on: bool,
    since: u64,
}

impl LightRule {
    /// `seen`: the line works, and steps are short enough to see every flash.
    fn check(&mut self, now: u64, on: bool, seen: bool) -> Result<(), TestCaseError> {
        if on != self.on || !seen {
            // A line that was broken is tried again within five seconds.
            (self.on, self.since) = (on, if seen { now } else { now + 5_000 });
        }
        // Longer than any phase: the light phases of booting, updating, alarm and identify, each cut
        // short by the next.
        let still_ms = now.saturating_sub(self.since);
        prop_assert!(still_ms <= 4_000, "still for {still_ms} ms at {now}");
        Ok(())
    }
}

/// Never kicked while a part is silent beyond its patience, and always kicked while none is.
#[derive(Default)]
struct WatchdogRule {
    parts: [(Option<Pace>, u64, bool); 3],
    begun: Option<u64>,
    kicked: u64,
}

impl WatchdogRule {
    fn check(
        &mut self,
        options: &WatchdogOptions,
        now: u64,
        progress: &Progress,
        kick: bool,
    ) -> Result<(), TestCaseError> {
        let begun = *self.begun.get_or_insert(now);
        let graced = begun + options.grace_ms;
        let paces = [
            (progress.capture[2], options.capture_ms),
            (progress.store, options.store_ms),
            (progress.inquiry, options.inquiry_ms),
        ];
        let (mut must_not, mut may_not) = (false, false);
        for ((before, moved, stuck), (pace, patience_ms)) in self.parts.iter_mut().zip(paces) {
            let counts =
                matches!((*before, pace), (Some(Pace::Count(a)), Pace::Count(b)) if a != b);
            let waits = matches!((*before, pace), (Some(Pace::Count(_)), Pace::Count(_)));
            *before = Some(pace);
            if counts || !waits && !*stuck {
                (*moved, *stuck) = (now, false);
            }
            let silent_ms = now.saturating_sub((*moved).max(graced));
            // The step in which the grace ends counts whole, or not at all.
            *stuck |= silent_ms >= patience_ms;
            must_not |= silent_ms >= patience_ms + 1_000 && *stuck;
            may_not |= silent_ms + 2_000 >= patience_ms || *stuck;
        }
        prop_assert!(!(kick && must_not), "kicked while a part is stuck, at {now}");
        if kick || may_not {
            self.kicked = now;
        }
        let ago_ms = now - self.kicked;
        prop_assert!(
            ago_ms <= options.kick_every_ms + 1_000,
            "not kicked for {ago_ms} ms at {now}"
        );
        Ok(())
    }
}

/// The level is never below the newest reading, and the infrared never above what the level allows.
#[derive(Default)]
struct HeatRule {
    hot_since: Option<u64>,
}

impl HeatRule {
    fn check(
        &mut self,
        options: &BoardOptions,
        now: u64,
        temperature: Temperature,
        asked: &Asked,
        duty: u16,
    ) -> Result<(), TestCaseError> {
        let thermal = options.thermal;
        let critical = thermal.critical_at_mc..=thermal.plausible_max_mc;
        match temperature {
            Temperature::MilliCelsius(mc) if critical.contains(&mc) => {
                let since = *self.hot_since.get_or_insert(now);
                // Readings are taken once a second, and the first of a sensor that was lost counts twice.
                let late = now - since > 3_000;
                prop_assert!(!late || asked.level == ThrottleLevel::Critical, "at {now}");
            }
            _ => self.hot_since = None,
        }
        let cap = u32::from(asked.throttle.infrared_permille) * u32::from(LAMP_FULL) / 1000;
        prop_assert!(u32::from(duty) <= cap, "infrared at {duty} of {cap}, at {now}");
        Ok(())
    }
}
