//! What tenants stand on: brokers with what these keep, and all that may befall them.

use super::{client::Door, dice::Dice, look::Places};
use crate::{database::Database, inside::Inside};

/// Something that befalls brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// A broker is killed, and started again after a while.
    Kill,
    /// A broker is told to end, and started again.
    End,
    /// A broker stands still for longer than its claims hold.
    Pause,
    /// A member, or whatever works beside it, is killed.
    Member,
    /// The server of the store ends, at once or in order, and begins again.
    Store,
    /// A broker does not reach the store.
    CutOff,
    /// A broker's clock is put ahead or back.
    Skew,
    /// The disk of the store is full for a while.
    FullStore,
    /// The disk of the backups is.
    FullBackups,
}

/// How far a broker's clock is put ahead or back, at most, in seconds.
const SKEW_SECONDS_MAX: usize = 60;

/// How far a clock is put ahead.
pub fn skew(dice: &mut Dice) -> i64 {
    let by = dice.below(2 * SKEW_SECONDS_MAX + 1);
    i64::try_from(by).expect("a number") - i64::try_from(SKEW_SECONDS_MAX).expect("a number")
}

/// Brokers, and what they share.
pub trait Ground {
    /// Where they are asked.
    fn doors(&self) -> Vec<Door>;
    /// The clusters that instances are put on.
    fn clusters(&self) -> Vec<String>;
    /// What instances are.
    fn database(&self) -> Database;
    /// Where everything is.
    fn places(&self) -> Places;
    /// A look inside.
    fn inside(&self) -> Inside;
    /// Lets something befall one of the brokers, and waits until that is over.
    async fn suffer(&mut self, blow: Blow, dice: &mut Dice);
    /// Lets everything be calm, and waits until all brokers serve.
    async fn calm_down(&mut self);
}
