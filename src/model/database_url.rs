//! The address of the broker's own store: which database it names.

/// The database that an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseUrl<'a> {
    /// A file, by its path.
    Sqlite(&'a str),
    /// A server, which several brokers may use.
    Postgres,
}

impl<'a> DatabaseUrl<'a> {
    /// Reads `sqlite://` and a path, or an address of libpq; none where it is neither.
    pub fn parse(url: &'a str) -> Option<Self> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            Some(Self::Sqlite(path))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Some(Self::Postgres)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_file_a_server_or_nothing() {
        for (url, named) in [
            ("sqlite:///a/b.db", Some(DatabaseUrl::Sqlite("/a/b.db"))),
            ("sqlite://b.db", Some(DatabaseUrl::Sqlite("b.db"))),
            ("postgres://u:p@h/d", Some(DatabaseUrl::Postgres)),
            ("postgresql:///d?host=/run", Some(DatabaseUrl::Postgres)),
            ("mysql://u:p@h/d", None),
            ("postgres:d", None),
            ("", None),
        ] {
            assert_eq!(DatabaseUrl::parse(url), named, "{url}");
        }
    }
}
