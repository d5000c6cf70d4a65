//! Members that hang while an operation has them in hand: the watchdog leaves them to it then.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{OpenDeployment, StepError, Work, sizes};
use crate::{
    model::{
        limits::LIVENESS_INTERVAL,
        repair::{Silences, hang_patience, next_hung},
    },
    provisioner::signs_of_life,
};

/// Watches over the members of one deployment.
pub struct Vigil<'w> {
    opened: &'w OpenDeployment,
    patience: Duration,
    silences: Silences,
    begun: Instant,
    asked: Option<Instant>,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No member hangs, as far as is known.
    Nothing,
    /// A member runs and gives no sign of life; it is not ended yet.
    Silence,
    /// A member was ended and started anew.
    Restart,
}

impl<'w> Vigil<'w> {
    /// Begins; what was before it does not count.
    pub async fn begin(work: &Work, opened: &'w OpenDeployment) -> Result<Self, StepError> {
        let bytes = sizes::bytes_on_disk(opened).await?;
        Ok(Self {
            opened,
            patience: hang_patience(work.parts.hang_after, bytes),
            silences: Silences::default(),
            begun: Instant::now(),
            asked: None,
        })
    }

    /// For how long a member may be silent before it is ended, where the others go on.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks the members for a sign of life, when it is time to; ends and starts anew one that hangs,
    /// as [`next_hung`] says.
    pub async fn look(&mut self) -> Result<Seen, StepError> {
        let now = Instant::now();
        if self
            .asked
            .is_some_and(|asked| now - asked < LIVENESS_INTERVAL)
        {
            return Ok(self.seen());
        }
        self.asked = Some(now);
        let (opened, deployment) = (self.opened, &self.opened.deployment);
        let alive = opened.engine.alive(opened.site()).await?;
        let provisioner = opened.provisioner();
        let observed = provisioner.observe(&deployment.id).await?;
        let signs = signs_of_life(deployment, &alive, &observed);
        let members = self.silences.note(now - self.begun, &signs);
        let needed = opened.profile().members_needed;
        let Some(hung) = next_hung(&members, needed, self.patience) else {
            return Ok(self.seen());
        };
        let name = &deployment.members[hung].name;
        log::warn!(deployment:% = deployment.id, member = name.as_str();
            "the member gave no sign of life for {:?} while others did; it is ended and started \
             anew", members[hung].silent_for.unwrap_or_default());
        provisioner.restart(&deployment.id, name).await?;
        self.silences.forget();
        Ok(Seen::Restart)
    }

    fn seen(&self) -> Seen {
        match self.silences.is_any() {
            true => Seen::Silence,
            false => Seen::Nothing,
        }
    }

    /// Goes on until a look fails.
    pub async fn keep(mut self) -> StepError {
        loop {
            sleep(LIVENESS_INTERVAL).await;
            if let Err(error) = self.look().await {
                return error;
            }
        }
    }
}
