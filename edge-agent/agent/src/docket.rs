//! Which inquiry comes next. Pure: `wake` and `ready` change nothing but the docket.
//!
//! A wake waits until the footage after it has settled; wakes of one camera that come meanwhile
//! extend it instead of queuing twice. When more is due than can be done, the least salient
//! inquiry is given up and counted, never silently.

use hal_camera::{CameraId, MediaTime, Span};
use std::collections::VecDeque;

/// Why an inquiry is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The sentinel woke.
    Wake,
    /// The clock.
    Patrol,
}

/// An inquiry that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// Which camera.
    pub camera: CameraId,
    /// The window to glance at.
    pub window: Span,
    /// When the sentinel woke; `None` on patrol.
    pub woken_at: Option<MediaTime>,
    /// How salient it was, 0 to 1.
    pub saliency: f32,
}

/// Which settled inquiry goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The most salient: when there is not time for all, the best use of it.
    Salience,
    /// The oldest: a recording is told in its own order, whatever the machine's speed.
    Time,
}

/// Inquiries that wait.
#[derive(Debug)]
pub struct Docket {
    look_back_s: f64,
    settle_s: f64,
    /// How many settled inquiries may wait for the policy.
    most: usize,
    order: Order,
    settling: Vec<Due>,
    settled: VecDeque<Due>,
    given_up: u64,
}

/// A wake may be put off by later wakes for this long at most, in multiples of the settle time:
/// a scene that never rests must still be looked at.
const LONGEST_WAIT: f64 = 5.0;

impl Docket {
    /// An empty docket for windows `[t − look_back_s, t + settle_s]`, of at most `most` waiting.
    pub fn new(look_back_s: f64, settle_s: f64, most: usize, order: Order) -> Self {
        let (settling, settled) = (vec![], VecDeque::new());
        Self { look_back_s, settle_s, most, order, settling, settled, given_up: 0 }
    }

    /// The sentinel woke, or a patrol is due.
    pub fn wake(&mut self, camera: CameraId, at: MediaTime, saliency: f32, cause: Cause) {
        let end = at.plus_s(self.settle_s);
        let woken_at = (cause == Cause::Wake).then_some(at);
        if let Some(open) = self.settling.iter_mut().find(|d| d.camera == camera) {
            let latest = open.window.start.plus_s(self.look_back_s + LONGEST_WAIT * self.settle_s);
            open.window.end = open.window.end.max(end.min(latest));
            open.woken_at = open.woken_at.or(woken_at);
            open.saliency = open.saliency.max(saliency);
            return;
        }
        let window = Span::new(at.plus_s(-self.look_back_s), end);
        self.settling.push(Due { camera, window, woken_at, saliency });
    }

    /// Footage of `camera` has come as far as `now`: what has settled goes to the queue.
    pub fn advance(&mut self, camera: CameraId, now: MediaTime) {
        let done = |d: &Due| d.camera == camera && d.window.end <= now;
        while let Some(at) = self.settling.iter().position(done) {
            self.enqueue(at);
        }
    }

    /// The camera has ended: nothing more will settle.
    pub fn close(&mut self, camera: CameraId) {
        while let Some(at) = self.settling.iter().position(|d| d.camera == camera) {
            self.enqueue(at);
        }
    }

    fn enqueue(&mut self, settling: usize) {
        let due = self.settling.swap_remove(settling);
        self.settled.push_back(due);
        if self.settled.len() > self.most {
            let least = (0..self.settled.len())
                .min_by(|&a, &b| self.settled[a].saliency.total_cmp(&self.settled[b].saliency));
            if let Some(least) = least {
                self.settled.remove(least);
                self.given_up += 1;
            }
        }
    }

    /// Whether no settled inquiry waits.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
    }

    /// Whether another settled inquiry would push one out.
    pub fn is_full(&self) -> bool {
        self.settled.len() >= self.most
    }

    /// The next inquiry, by the docket's order; of equally salient ones the oldest.
    pub fn next(&mut self) -> Option<Due> {
        if self.order == Order::Time {
            return self.settled.pop_front();
        }
        let best = (0..self.settled.len()).max_by(|&a, &b| {
            let (a_due, b_due) = (&self.settled[a], &self.settled[b]);
            a_due.saliency.total_cmp(&b_due.saliency).then(b.cmp(&a))
        })?;
        self.settled.remove(best)
    }

    /// Inquiries given up since the last call.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CameraId = CameraId(0);
    const B: CameraId = CameraId(1);

    fn t(s: f64) -> MediaTime {
        MediaTime::from_s(s)
    }

    #[test]
    fn a_wake_waits_until_its_footage_has_settled() {
        let mut docket = Docket::new(120.0, 2.0, 4, Order::Salience);
        docket.wake(A, t(200.0), 0.5, Cause::Wake);
        docket.advance(A, t(201.9));
        assert_eq!(docket.next(), None);
        docket.advance(A, t(202.0));
        let due = docket.next().unwrap();
        assert_eq!(due.window, Span::new(t(80.0), t(202.0)));
        assert_eq!(due.woken_at, Some(t(200.0)));
    }

    #[test]
    fn wakes_that_overlap_extend_one_inquiry_and_not_for_ever() {
        let mut docket = Docket::new(120.0, 2.0, 4, Order::Salience);
        for i in 0..100 {
            docket.wake(A, t(200.0 + f64::from(i)), 0.1, Cause::Wake);
        }
        docket.advance(A, t(210.0));
        let due = docket.next().unwrap();
        assert_eq!(due.window.end, t(210.0));
        assert_eq!(docket.next(), None);
    }

    #[test]
    fn a_recording_is_looked_at_in_its_own_order() {
        let mut docket = Docket::new(120.0, 2.0, 4, Order::Time);
        for (at, saliency) in [(200.0, 0.2), (300.0, 0.9), (400.0, 0.5)] {
            docket.wake(A, t(at), saliency, Cause::Wake);
            docket.advance(A, t(at + 2.0));
        }
        let ends: Vec<f64> =
            std::iter::from_fn(|| docket.next()).map(|d| d.window.end.as_s()).collect();
        assert_eq!(ends, [202.0, 302.0, 402.0]);
    }

    #[test]
    fn the_most_salient_goes_first_and_the_least_is_given_up_and_counted() {
        let mut docket = Docket::new(120.0, 2.0, 2, Order::Salience);
        for (camera, saliency) in [(A, 0.2), (B, 0.9), (CameraId(2), 0.5)] {
            docket.wake(camera, t(200.0), saliency, Cause::Wake);
            docket.advance(camera, t(300.0));
        }
        assert_eq!(docket.take_given_up(), 1);
        assert_eq!(docket.next().unwrap().camera, B);
        assert_eq!(docket.next().unwrap().camera, CameraId(2));
        assert_eq!(docket.next(), None);
    }
}
