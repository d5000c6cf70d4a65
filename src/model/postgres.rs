//! What a broker asks of its server of PostgreSQL, beside what the address of the database says.

use std::time::Duration;

use super::limits::postgres::{
    POSTGRES_LOCK_SECONDS, POSTGRES_READERS, POSTGRES_STATEMENT_SECONDS, POSTGRES_TIMEOUT_SECONDS,
};

/// How the broker uses its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresUse {
    /// Connections that only read; one more decides, and one writes heartbeats.
    pub readers: u32,
    /// A statement that takes longer is broken off.
    pub statement_timeout: Duration,
    /// A writer waits this long for another broker's transaction.
    pub lock_timeout: Duration,
    /// Whether a pooler stands in between that gives each transaction any of its connections: nothing may be
    /// left in a session then.
    pub behind_pooler: bool,
    /// Whether leases and the queue go by the broker's own clock, and not by the database's: for tests, whose
    /// clocks do as they are told.
    pub own_time: bool,
}

impl Default for PostgresUse {
    fn default() -> Self {
        Self {
            readers: POSTGRES_READERS,
            statement_timeout: Duration::from_secs(POSTGRES_STATEMENT_SECONDS.into()),
            lock_timeout: Duration::from_secs(POSTGRES_LOCK_SECONDS.into()),
            behind_pooler: false,
            own_time: false,
        }
    }
}

/// A database for the store.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseAddress<'a> {
    /// See [`super::database_url::DatabaseUrl`].
    pub url: &'a str,
    /// How it is used where it is one of PostgreSQL.
    pub postgres: PostgresUse,
}

impl<'a, T: AsRef<str> + ?Sized> From<&'a T> for DatabaseAddress<'a> {
    fn from(url: &'a T) -> Self {
        Self {
            url: url.as_ref(),
            postgres: PostgresUse::default(),
        }
    }
}

/// What is said to the server of every connection, unless its address says it: the name that an administrator
/// sees, and how soon a connection is given up that leads nowhere. Without the latter a broker would wait for
/// hours after its network was cut.
fn parameters() -> [(&'static str, String); 6] {
    let seconds = POSTGRES_TIMEOUT_SECONDS;
    [
        ("application_name", "compose-broker".to_owned()),
        ("connect_timeout", seconds.to_string()),
        ("keepalives_idle", (seconds / 2).to_string()),
        ("keepalives_interval", (seconds / 5).to_string()),
        ("keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", (1000 * seconds).to_string()),
    ]
}

/// The address `url` with the parameters that it does not have.
pub fn complete(url: &str) -> String {
    // A password may have a question mark; it stands before the first `@`, and that before the first slash.
    let begins = url.find("://").map_or(0, |at| at + 3);
    let authority = url[begins..].split('/').next().unwrap_or_default();
    let begins = begins + authority.find('@').unwrap_or_default();
    let query = url[begins..].find('?').map(|at| begins + at + 1);
    let given = query.map_or("", |at| &url[at..]);
    let is_given = |name: &str| {
        let mut pairs = given.split('&');
        pairs.any(|pair| pair.split('=').next() == Some(name))
    };
    let mut complete = url.to_owned();
    let mut separator = match query {
        None => '?',
        Some(_) => '&',
    };
    for (name, value) in parameters() {
        if !is_given(name) {
            complete.push(separator);
            complete.push_str(&format!("{name}={value}"));
            separator = '&';
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_it_says_and_the_rest_is_added() {
        let all = complete("postgres://u:p?w@h/d");
        let (url, query) = all.rsplit_once('?').expect("parameters");
        assert_eq!(url, "postgres://u:p?w@h/d");
        assert!(query.starts_with("application_name=compose-broker&connect_timeout="));
        assert_eq!(query.matches('=').count(), 6, "{query}");
        let own = complete("postgres:///d?host=/run&application_name=mine&connect_timeout=1");
        assert!(
            own.starts_with("postgres:///d?host=/run&application_name=mine&connect_timeout=1&")
        );
        assert_eq!(own.matches("application_name").count(), 1);
        assert_eq!(own.matches("connect_timeout").count(), 1);
        assert!(own.contains("&tcp_user_timeout="));
        assert_eq!(complete(&own), own);
    }
}
