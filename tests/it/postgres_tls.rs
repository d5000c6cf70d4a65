//! A server of PostgreSQL that is reached over TLS: its certificate is checked, and the connections are what the
//! settings say.

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, sql_query,
    sql_types::{Bool, Text},
};

use crate::{
    postgres::{Server, name_of},
    process::{BrokerProcess, assert_one_line, free_port, new_key_ring, refused},
    tls::Authority,
};

/// A connection as the server has it.
#[derive(Debug, QueryableByName)]
struct Seen {
    #[diesel(sql_type = Bool)]
    ssl: bool,
    #[diesel(sql_type = Text)]
    name: String,
}

/// The connections to a database, but for the one that asks.
fn connections(url: &str) -> Vec<Seen> {
    let mut admin = PgConnection::establish(url).expect("a connection");
    let all = "SELECT s.ssl, a.application_name AS name
               FROM pg_stat_activity a JOIN pg_stat_ssl s ON s.pid = a.pid
               WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()";
    sql_query(all).load(&mut admin).expect("rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_s_certificate_is_checked_and_its_connections_are_as_many_as_are_allowed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.give_out(0x3333);
    let (file, port) = (|name| authority.file(name), free_port());
    let Some(server) = Server::over_tls(&file("server.crt"), &file("server.key"), port) else {
        return;
    };
    let inside = server.new_database();
    let name = name_of(&inside);
    let over_tls = |host: &str, authority: &Authority| {
        let ca = authority.file("ca.crt");
        format!(
            "postgres://broker@{host}:{port}/{name}?sslmode=verify-full&sslrootcert={}\
             &application_name=mine",
            ca.display()
        )
    };
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("DATABASE_URL", over_tls("127.0.0.1", &authority));
        settings.insert("DATABASE_READERS", "2".to_owned());
        settings.insert("ENCRYPTION_KEYS", new_key_ring());
    });
    broker.start_again().await;
    let seen = connections(&inside);
    assert_eq!(
        seen.len(),
        4,
        "two that read, one that decides, one for heartbeats: {seen:?}"
    );
    assert!(
        seen.iter().all(|one| one.ssl && one.name == "mine"),
        "{seen:?}"
    );
    broker.kill();

    for (url, why) in [
        (over_tls("127.0.0.1", &stranger), "SSL error"),
        (
            over_tls("localhost", &authority),
            "does not match host name",
        ),
    ] {
        broker.change_settings(|settings| _ = settings.insert("DATABASE_URL", url));
        let refused = refused(broker.settings()).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{said}");
        assert!(said.contains(why), "{said}");
    }
    for (setting, value) in [
        ("DATABASE_READERS", "0"),
        ("DATABASE_STATEMENT_SECONDS", "none"),
        ("DATABASE_LOCK_SECONDS", "61"),
        ("DATABASE_POOLER", "session"),
    ] {
        let mut wrong = broker.settings().clone();
        wrong.insert(setting, value.to_owned());
        assert_one_line(&refused(&wrong).await, setting);
    }
}
