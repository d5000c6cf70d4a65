//! Who acts: what is known of the one behind a request, kept beside the task that handles it, so
//! that what is accepted can be written down with a name.
//!
//! No rule asks for it. Work that nobody in particular asked for has no caller.

use std::net::IpAddr;

use tokio::task_local;

task_local! {
    static CALLER: Caller;
}

/// The one behind a request, as far as the request tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// Where `user` is known: the platform's name, such as `cloudfoundry`.
    pub platform: Option<String>,
    /// The platform's id or name of the user.
    pub user: Option<String>,
    /// The platform's name of the request.
    pub request_id: Option<String>,
    /// The address that the request comes from.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Who this task acts for.
    pub fn current() -> Self {
        CALLER.try_with(Self::clone).unwrap_or_default()
    }

    /// The same, called an operator where nobody is named: who acts with the broker's own credentials.
    pub fn or_operator(self) -> Self {
        Self {
            platform: self.platform.or_else(|| Some("compose".to_owned())),
            user: self.user.or_else(|| Some("operator".to_owned())),
            ..self
        }
    }

    /// Does `work` for this caller.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        CALLER.scope(self, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_is_known_in_its_own_work_alone() {
        let ada = Caller {
            user: Some("ada".to_owned()),
            ..Caller::default()
        };
        let inside = ada.clone().during(async {
            let inner = Caller::default().during(async { Caller::current() });
            (inner.await, Caller::current())
        });
        assert_eq!(inside.await, (Caller::default(), ada));
        assert_eq!(Caller::current(), Caller::default());
    }
}
