//! Looks at all instances, round after round: for the metrics, for how databases were over time, and to tell
//! the log and the operator's webhook of what begins and ends: members that do not answer, backups that are
//! late. A clockwork that decides nothing.
//!
//! Between two rounds lies many times what one takes, so that looking takes a small part of the time.
//! Of a round that takes longer than the longest pause it is a third of the time: pages lie apart, too.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError, LookedOver},
    metrics::Metrics,
    model::{
        alert::Alert,
        failure::chain,
        figures::{Round, Totals},
        ids::InstanceId,
        limits::{
            ROUND_PAGE_PAUSE_MAX, ROUND_PAGE_PAUSES, ROUND_PAUSE_MAX, ROUND_PAUSE_MIN,
            ROUND_PAUSES, SILENCE_LOGGED_AFTER,
        },
        message::{Settling, Threshold},
        observation::Observation,
        remembered::Roll,
    },
};

/// What the operator's webhook is told.
pub struct NotifierSettings {
    /// How grave an alert must be.
    pub threshold: Threshold,
    /// What has been so for so long is told.
    pub settles_after: Duration,
}

/// Makes rounds until `stop`. Changes are told where there is somebody to be told; `serving` gets the instances
/// whose members serve again after they did not.
pub async fn run(
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    notifier: Option<NotifierSettings>,
    serving: UnboundedSender<InstanceId>,
    stop: CancellationToken,
) {
    let begun_at = Instant::now();
    let (mut memory, mut fails) = (Memory::default(), false);
    let mut notifier = notifier.map(Notifier::new);
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let told = metrics.instances_told();
        let times = (begun_at, begun);
        let looking = round(
            &broker,
            told,
            &mut memory,
            notifier.as_mut(),
            &serving,
            times,
        );
        match stop.run_until_cancelled(looking).await {
            None => return,
            Some(Ok(round)) => {
                metrics.set_round(round);
                fails = false;
            }
            Some(Err(error)) => {
                if !fails {
                    log::error!("cannot look at all instances: {}", chain(&error));
                }
                fails = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause_after(begun.elapsed())) => {}
        }
    }
}

/// How long nothing is looked at after a round that took so long.
fn pause_after(took: Duration) -> Duration {
    (took * ROUND_PAUSES).clamp(ROUND_PAUSE_MIN, ROUND_PAUSE_MAX)
}

/// Looks at all instances, and keeps of each no more than what has to be remembered: of `told` of them
/// what is told of one by one.
async fn round(
    broker: &Broker,
    told: usize,
    memory: &mut Memory,
    mut notifier: Option<&mut Notifier>,
    serving: &UnboundedSender<InstanceId>,
    (begun_at, begun): (Instant, Instant),
) -> Result<Round, BrokerError> {
    let (mut totals, mut named) = (Totals::default(), Vec::new());
    let mut next = Some(String::new());
    while let Some(after) = next {
        let page_begun = Instant::now();
        let (page, last) = broker.rounds.look_over(&after).await?;
        let took = page_begun.elapsed();
        broker.histories.note(&page).await?;
        if let Some(notifier) = &mut notifier {
            notifier.note(broker, &page, begun_at.elapsed()).await?;
        }
        for looked in page {
            let id = &looked.seen.id;
            for change in memory.note(&sight(&looked), begun_at.elapsed()) {
                change.log(id);
                if change == Change::Serves {
                    // Nobody hears of it when the broker stops.
                    let _ = serving.send(id.clone());
                }
            }
            totals.add(&looked.seen);
            if named.len() < told {
                named.push(looked.seen);
            }
        }
        next = last;
        if next.is_some() {
            sleep((took * ROUND_PAGE_PAUSES).min(ROUND_PAGE_PAUSE_MAX)).await;
        }
    }
    memory.0.forget_gone();
    broker.histories.end_round();
    if let Some(notifier) = notifier {
        notifier.end(broker).await?;
    }
    Ok(Round {
        ended_at: broker.clock.now(),
        took: begun.elapsed(),
        totals,
        named,
    })
}

/// Finds what the operator's webhook is told of the instances that this broker looks after.
struct Notifier {
    threshold: Threshold,
    settling: Settling,
}

impl Notifier {
    fn new(of: NotifierSettings) -> Self {
        Self {
            threshold: of.threshold,
            settling: Settling::over(of.settles_after),
        }
    }

    async fn note(
        &mut self,
        broker: &Broker,
        page: &[LookedOver],
        now: Duration,
    ) -> Result<(), BrokerError> {
        let settled = page.iter().map(|looked| {
            let told = |alert: &&Alert| self.threshold.includes(alert.gravity);
            let alerts = looked.alerts.iter().filter(told).cloned().collect();
            let id = &looked.seen.id;
            let settled = self.settling.settle(id, alerts, looked.is_whole, now);
            (looked.seen.clone(), settled)
        });
        broker.outbox.note(settled.collect()).await
    }

    async fn end(&mut self, broker: &Broker) -> Result<(), BrokerError> {
        self.settling.forget_gone();
        match broker.outbox.is_ours().await? {
            true => broker.outbox.note_gone().await,
            false => Ok(()),
        }
    }
}

/// What is noted of an instance.
struct Sight<'a> {
    id: &'a InstanceId,
    /// Each member, and whether it does not answer; none where nobody could look.
    members: Option<Vec<(&'a str, bool)>>,
    /// Whether enough of them serve; none where nobody could look.
    serves: Option<bool>,
    is_late: bool,
}

fn sight(looked: &LookedOver) -> Sight<'_> {
    let seen = looked.observation.as_deref();
    let members = seen.map(|seen| {
        let members = seen.members.iter();
        members
            .map(|member| (member.name.as_str(), member.silence().is_some()))
            .collect()
    });
    Sight {
        id: &looked.seen.id,
        members,
        serves: seen.map(Observation::is_usable),
        is_late: looked.seen.is_backup_late,
    }
}

/// Something that began or ended, once each.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// A member has not answered for so long.
    Silent(String, Duration),
    /// It does again.
    Answers(String),
    /// Enough members serve again.
    Serves,
    /// The scheduled backup is late.
    Late,
    /// It has come, or is waited for no more.
    LateNoMore,
}

impl Change {
    fn log(&self, id: &InstanceId) {
        match self {
            Self::Silent(member, time) => log::warn!(instance:% = id, member = member.as_str();
                "the member has not answered for {} s", time.as_secs()),
            Self::Answers(member) => log::info!(instance:% = id, member = member.as_str();
                "the member answers again"),
            Self::Serves => log::info!(instance:% = id; "enough members serve again"),
            Self::Late => log::warn!(instance:% = id; "the scheduled backup is late"),
            Self::LateNoMore => {
                log::info!(instance:% = id; "the scheduled backup is late no more");
            }
        }
    }
}

/// What goes on, by instance: of most of them nothing.
#[derive(Default)]
struct Memory(Roll<Known>);

#[derive(Default)]
struct Known {
    /// Since when a member does not answer, and whether that was told.
    silent: HashMap<String, (Duration, bool)>,
    /// Not enough of them served.
    is_down: bool,
    is_late: bool,
}

impl Memory {
    /// What has begun or ended of an instance that looks so `now`.
    fn note(&mut self, sight: &Sight<'_>, now: Duration) -> Vec<Change> {
        let known = self.0.seen(sight.id, Known::default);
        let mut changes = Vec::new();
        for (member, is_silent) in sight.members.iter().flatten() {
            if !is_silent {
                if let Some((_, true)) = known.silent.remove(*member) {
                    changes.push(Change::Answers((*member).to_owned()));
                }
                continue;
            }
            let silence = known.silent.entry((*member).to_owned());
            let (since, was_told) = silence.or_insert((now, false));
            let time = now.saturating_sub(*since);
            if !*was_told && time >= SILENCE_LOGGED_AFTER {
                *was_told = true;
                changes.push(Change::Silent((*member).to_owned(), time));
            }
        }
        if let Some(members) = &sight.members {
            // Others have taken the places of those that are gone.
            let there = |name: &String| members.iter().any(|(member, _)| member == name);
            known.silent.retain(|name, _| there(name));
        }
        if let Some(serves) = sight.serves {
            if serves && known.is_down {
                changes.push(Change::Serves);
            }
            known.is_down = !serves;
        }
        if sight.is_late != known.is_late {
            known.is_late = sight.is_late;
            changes.push(if sight.is_late {
                Change::Late
            } else {
                Change::LateNoMore
            });
        }
        if known.silent.is_empty() && !known.is_down && !known.is_late {
            self.0.forget(sight.id);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_take_a_small_part_of_the_time() {
        assert_eq!(pause_after(Duration::from_millis(3)), ROUND_PAUSE_MIN);
        assert_eq!(pause_after(Duration::from_secs(2)), Duration::from_secs(20));
        assert_eq!(pause_after(Duration::from_secs(3600)), ROUND_PAUSE_MAX);
    }

    #[test]
    fn nothing_is_remembered_of_what_is_well_or_gone() {
        let ids = ["well", "silent", "late"].map(|id| id.parse::<InstanceId>().expect("an id"));
        let mut memory = Memory::default();
        let mut round = |seen: &[&InstanceId]| {
            for id in seen {
                let sight = Sight {
                    id,
                    members: Some(vec![("m0", id.as_str() == "silent")]),
                    serves: Some(true),
                    is_late: id.as_str() == "late",
                };
                memory.note(&sight, Duration::ZERO);
            }
            memory.0.forget_gone();
            memory.0.count()
        };
        let [well, silent, late] = &ids;
        assert_eq!(round(&[well, silent, late]), 2);
        assert_eq!(round(&[well, late]), 1);
        assert_eq!(round(&[well]), 0);
    }

    #[test]
    fn each_silence_and_each_late_backup_is_told_once_and_its_end_too() {
        let id: InstanceId = "db".parse().expect("an id");
        let mut memory = Memory::default();
        let mut note = |seconds, members: Option<[bool; 2]>, is_late| {
            let named = |silent: [bool; 2]| vec![("m0", silent[0]), ("m1", silent[1])];
            let sight = Sight {
                id: &id,
                serves: members.map(|silent| !silent.iter().all(|is| *is)),
                members: members.map(named),
                is_late,
            };
            memory.note(&sight, Duration::from_secs(seconds))
        };
        let minute = SILENCE_LOGGED_AFTER.as_secs();
        let silent = |time| Change::Silent("m1".to_owned(), Duration::from_secs(time));
        assert_eq!(note(0, Some([false, true]), false), []);
        assert_eq!(note(minute - 1, Some([true, true]), false), []);
        // Nobody could look: that is no answer.
        assert_eq!(note(minute, None, false), []);
        assert_eq!(
            note(minute + 1, Some([false, true]), true),
            [silent(minute + 1), Change::Serves, Change::Late]
        );
        assert_eq!(note(minute + 9, Some([false, true]), true), []);
        assert_eq!(
            note(minute + 20, Some([false, false]), false),
            [Change::Answers("m1".to_owned()), Change::LateNoMore]
        );
        assert_eq!(note(minute + 30, Some([false, false]), false), []);
    }
}
